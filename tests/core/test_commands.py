"""``composer plugins`` and ``composer check``, and packages that break."""

import errno
import json
import runpy
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from composer import Register, Transform, hookimpl, installed
from composer import cli as cli_module
from composer.commands import check as check_module
from composer.commands import plugins as plugins_module
from composer.registry import Package, Registry
from composer_plugins import CFG, GrayColour, Inpaint
from composer_plugins.transforms import Flip, Permutation


class Rolled(Transform):
    """Rolled to the right, and back too far."""

    def __call__(self, x):
        return x.roll(1, -1)

    def inverse(self, x):
        return x.roll(-2, -1)


class Fussy(Transform):
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("no licence")

    __call__ = inverse = None


class Doubled:
    """Twice the answer."""

    @hookimpl
    def noise_estimate(self, request):
        return 2 * (yield [request])[0]


class Tripled(Doubled):
    """Thrice the answer, and meant."""

    obeys_law = False


@pytest.fixture
def run(monkeypatch):
    mine, others = Register("composer-mine"), Register("composer-others")
    mine.transform("right", Flip)
    mine.transform("free", Permutation)
    mine.decomposition("gray", GrayColour)
    mine.plugin("paint", Inpaint)
    mine.plugin("meant", Tripled)
    others.transform("rolled", Rolled)
    others.transform("fussy", Fussy)
    mine.plugin("guidance", CFG, example=lambda: CFG(3.0))
    others.plugin("doubled", Doubled)
    others.plugin("wrong", Inpaint, example=lambda: Inpaint(3, 4))
    packages = (
        Package("mine", "composer-mine", "1.0"),
        Package("others", "composer-others", "2.0"),
        Package("lost", "composer-lost", "0.1", "ImportError: no module named\nnumpyy"),
    )
    offers = Registry().with_offers(mine).with_offers(others).offers
    registry = Registry(offers, packages)
    for module in (check_module, plugins_module):
        monkeypatch.setattr(module, "installed", lambda: registry)
    return lambda *arguments: CliRunner().invoke(cli_module.main, arguments)


def test_plugins_is_a_table(run):
    lines = run("plugins").output.splitlines()
    assert lines[0].split() == ["name", "kind", "distribution", "version", "description"]
    assert lines[2].split()[:4] == ["doubled", "plugin", "composer-others", "2.0"]
    assert lines[2].endswith("  Twice the answer.")
    assert lines[-1] == "lost         composer-lost  0.1      ImportError: no module named numpyy"


def test_plugins_as_json(run):
    listed = json.loads(run("plugins", "--json").output)
    assert listed["failed"][0]["error"].startswith("ImportError")
    row = next(row for row in listed["offers"] if row["name"] == "doubled")
    assert (row["hooks"], row["version"]) == (["noise_estimate"], "2.0")


def test_the_core_has_a_version_too():
    listed = json.loads(CliRunner().invoke(cli_module.main, ["plugins", "--json"]).output)
    euler = next(row for row in listed["offers"] if row["name"] == "euler")
    cfg = next(row for row in listed["offers"] if row["name"] == "cfg")
    assert euler["distribution"] == "diffusion-composer"
    assert euler["version"] == cfg["version"] != "unknown"
    assert len(listed["offers"]) == len(installed().offers)


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["composer", "--version"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("composer", run_name="__main__")
    assert done.value.code == 0
    assert "version" in capsys.readouterr().out


def test_check_passes_a_right_transform(run):
    done = run("check", "right", "--verbose")
    assert done.exit_code == 0
    assert "right  orthogonal_matrix      passed" in done.output
    assert done.output.endswith("0 failed, 0 skipped, of right\n")


def test_check_fails_a_wrong_one_with_the_reason_and_the_mend(run):
    done = run("check", "rolled")
    assert done.exit_code == 1
    assert "rolled  inverse_on_both_sides  failed   inverse(f(x)) of" in done.output
    assert "; let inverse() undo __call__ at every size" in done.output
    assert "linear" not in done.output  # what passed is counted, not shown
    assert run("check", "doubled").exit_code == 1


@pytest.mark.parametrize("name", ["mine", "composer-mine"])
def test_check_of_a_package_takes_all_it_offers(run, name):
    done = run("check", name, "--json")
    told = json.loads(done.output)
    rows = {(row["name"], row["check"]): row for row in told["checks"]}
    assert done.exit_code == told["failed"] == 0
    assert rows["right", "norm"]["status"] == rows["gray", "scales"]["status"] == "passed"
    assert rows["free", "all"]["why"].startswith("needs indices; check it in a test")
    assert rows["paint", "all"]["why"].startswith("needs image, mask")
    assert rows["meant", "all"]["why"].endswith("it declares that it leaves the law of composition")
    assert rows["guidance", "same_sample_flow"]["status"] == "passed"


def test_check_of_what_cannot_be_made_or_loaded_fails_with_its_error(run):
    done = run("check", "composer-others")
    assert done.exit_code == 1
    assert "fussy    is made" in done.output
    assert "RuntimeError: no licence" in done.output
    assert "wrong    is made" in done.output
    done = run("check", "lost")
    assert done.exit_code == 1
    assert "lost  loads  failed  ImportError: no module named numpyy" in done.output


def test_an_unknown_name_comes_with_the_nearest(run):
    done = run("check", "rolledd")
    assert done.exit_code == 2
    assert done.output == (
        "Error: Unknown transform, decomposition, plugin or package 'rolledd'. "
        "Did you mean rolled or doubled?\n"
    )


def test_what_has_no_contract_is_said_to_have_none():
    done = CliRunner().invoke(cli_module.main, ["check", "euler"])
    assert done.exit_code == 2
    assert (
        "Error: NAME must be a transform, decomposition or plugin, got the solver euler"
        in done.output
    )


class Undocumented(type):
    """Of classes whose docstring is a program that fails."""

    @property
    def __doc__(cls):
        print("reading")
        raise ZeroDivisionError("no docstring")


class Odd(metaclass=Undocumented):
    pass


class Shy(type):
    """Of classes that leave when they are asked what they have."""

    def __getattr__(cls, name):
        raise SystemExit(9)


class Loud(Flip):
    """Prints, and leaves when it is called."""

    def __call__(self, x):
        print("calling")
        raise SystemExit(9)


@pytest.fixture
def misbehaving(monkeypatch):
    register = Register("composer-odd")
    register.plugin("odd", Odd)
    register.plugin("leaving", Shy("Leaving", (), {"__doc__": "Leaves."}))
    register.transform("loud", Loud)
    register.transform("escape", Flip)
    packages = (Package("odd", "composer-odd", "1.0", "Error: \x1b[31mred\nand blue"),)
    registry = Registry(Registry().with_offers(register).offers, packages)
    for module in (check_module, plugins_module):
        monkeypatch.setattr(module, "installed", lambda: registry)
    return lambda *arguments: CliRunner().invoke(cli_module.main, arguments)


def test_plugins_lists_what_misbehaves(misbehaving):
    done = misbehaving("plugins", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["offers"]}
    assert rows["odd"]["description"] == "ZeroDivisionError: no docstring"
    assert rows["leaving"]["description"] == "Leaves."
    assert rows["leaving"]["hooks"] == []
    assert done.stderr == "reading\n"
    done = misbehaving("plugins")
    assert done.exit_code == 0
    assert "odd          composer-odd  1.0      Error: ?[31mred and blue" in done.stdout


def test_check_of_what_misbehaves_is_rows(misbehaving):
    done = misbehaving("check", "composer-odd", "--json")
    assert done.exit_code == 1
    rows = [row for row in json.loads(done.stdout)["checks"] if row["status"] == "failed"]
    assert {row["name"] for row in rows} == {"odd", "leaving", "loud"}
    assert {row["why"] for row in rows if row["name"] == "loud"} >= {"SystemExit: 9"}
    assert "calling" in done.stderr


def test_a_name_is_printable():
    for name in ("a\nb", "\x1b[31m", "\ud800"):
        with pytest.raises(TypeError, match="must be a word"):
            Register("me").transform(name, Flip)


def broken():
    raise RuntimeError("made against another version")


class Unhelpful(click.Command):
    """Fails when --help asks what it does."""

    def get_short_help_str(self, limit=45):
        raise SystemExit(9)


def leaving():
    print("goodbye")
    raise SystemExit(9)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (leaving, "SystemExit: 9"),
        (lambda: Unhelpful("lost"), "SystemExit: 9"),
        (lambda: None, "TypeError: lost:go must be a click command, got None"),
        (lambda: len, "TypeError: lost:go must be a click command, got <built-in"),
    ],
)
def test_a_command_that_misbehaves_while_it_loads_is_a_row_of_help(monkeypatch, load, words):
    entry = SimpleNamespace(name="lost", value="lost:go", load=load, dist=None)
    install_command(monkeypatch, entry)
    helped = CliRunner().invoke(cli_module.main, ["--help"])
    assert helped.exit_code == 0
    assert "\n  lost " in helped.stdout
    assert "goodbye" not in helped.stdout
    done = CliRunner().invoke(cli_module.main, ["lost"])
    assert done.exit_code == 2
    assert f"Error: lost:go failed to load: {words}" in done.stderr


def install_command(monkeypatch, entry):
    class Entries(list):
        names = (entry.name,)

    monkeypatch.setattr(
        cli_module,
        "entry_points",
        lambda group, name=None: Entries([entry] if name in (None, entry.name) else []),
    )


@pytest.mark.parametrize(
    ("dist", "who"), [(SimpleNamespace(name="composer-lost"), "composer-lost"), (None, "lost:go")]
)
def test_a_command_that_breaks_says_so_and_leaves_the_others(monkeypatch, dist, who):
    entry = SimpleNamespace(name="lost", value="lost:go", load=broken, dist=dist)
    install_command(monkeypatch, entry)
    helped = CliRunner().invoke(cli_module.main, ["--help"])
    assert helped.exit_code == 0
    assert "List the registered names" in helped.output
    done = CliRunner().invoke(cli_module.main, ["lost"])
    assert done.exit_code == 2
    error = "RuntimeError: made against another version"
    assert done.output == f"Error: {who} failed to load: {error}\n"
    assert CliRunner().invoke(cli_module.main, ["lots"]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "No such option '--bogus'. See main --help."),
        (["qqq"], "No such command 'qqq'. See main --help."),
        (["chekc"], "No such command 'chekc'. Did you mean check? See main --help."),
        (["anagrm", "6", "9"], "No such command 'anagrm'. Did you mean anagram? See main"),
        (["check"], "Missing argument 'NAME'. See main check --help."),
        (
            ["check", "flip", "--jsn"],
            "No such option '--jsn'. Did you mean '--json'? See main chec",
        ),
    ],
)
def test_wrong_words_are_one_line(arguments, said):
    done = CliRunner().invoke(cli_module.main, arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def paths_of(command, words=()):
    """(words, parameter) of each path that a command and those in it take."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from paths_of(inner, (*words, name))
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            yield words, parameter


def test_an_empty_path_is_no_path():
    with click.Context(cli_module.main) as context:
        names = cli_module.main.list_commands(context)
        commands = {name: cli_module.main.get_command(context, name) for name in names}
    found = [p for name, command in commands.items() for p in paths_of(command, (name,))]
    assert {"sample", "train", "rank", "figures"} <= {words[0] for words, _ in found}
    for _, parameter in found:
        with pytest.raises(click.BadParameter, match=r"it must be a path, got ''"):
            parameter.type.convert("", parameter, None)
    done = CliRunner().invoke(cli_module.main, ["anagram", "6", "9", "--out", ""])
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "Invalid value for '--out': it must be a path, got ''" in done.stderr


def test_a_full_disk_below_the_output_is_one_line(monkeypatch):
    def full(value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plugins_module, "echo_json", full)
    done = CliRunner().invoke(cli_module.main, ["plugins", "--json"])
    assert (done.exit_code, done.stderr) == (2, "Error: No space left on device\n")


def test_a_reader_that_left_is_no_error(monkeypatch):
    def left(value):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(plugins_module, "echo_json", left)
    done = CliRunner().invoke(cli_module.main, ["plugins", "--json"])
    assert (done.exit_code, done.stderr) == (1, "")


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins_module, "installed", stopped)
    done = CliRunner().invoke(cli_module.main, ["plugins"])
    assert done.exit_code == 130
    assert done.stderr.splitlines() == [
        "Stopped. Files that were written are whole. The same command begins or goes on."
    ]
