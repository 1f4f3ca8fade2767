"""``composer check`` holds an offer to what it is offered as."""

import pytest
from click.testing import CliRunner

from composer import Register, hookimpl
from composer.cli import main
from composer.commands import check as check_module
from composer.registry import Registry
from composer_plugins import Bands, Components
from composer_plugins.transforms import Flip


class Misspelt:
    @hookimpl
    def noise_estimat(self, request):
        return (yield [request])[0]


@pytest.fixture
def run(monkeypatch):
    mine = Register("composer-mine")
    mine.transform("nothing", lambda: None)
    mine.plugin("number", lambda: 3)
    mine.plugin("view", Flip)
    mine.plugin("misspelt", Misspelt)
    mine.decomposition("whole", lambda: 3)
    mine.decomposition("bands", Bands)

    registry = Registry().with_offers(mine)
    monkeypatch.setattr(check_module, "installed", lambda: registry)
    return lambda name: CliRunner().invoke(main, ["check", name])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "TypeError: transform must be a Transform, got None"),
        ("number", "TypeError: int answers no hook"),
        ("view", "TypeError: Flip answers no hook"),
        ("misspelt", "ValueError: Misspelt does not fit the hooks"),
        ("whole", "TypeError: decomposition must be a sequence of functions of an image"),
    ],
)
def test_what_is_not_what_it_is_offered_as_fails(run, name, why):
    done = run(name)
    assert done.exit_code == 1
    assert "is made" in done.output
    assert why in done.output


def test_what_keeps_its_contract_passes(run):
    done = run("bands")
    assert done.exit_code == 0
    assert done.output.endswith("0 failed, 0 skipped, of bands\n")


def test_parts_know_their_name():
    """A tuple of functions would say nothing."""
    [bands] = {c.subject for c in check_module._CONTRACTS["decomposition"](Bands())}
    assert bands == "Bands(sigmas=(2.0,))"
    subjects = {c.subject for c in check_module._CONTRACTS["plugin"](Components(Bands(), (1, 2)))}
    assert subjects == {"Bands(sigmas=(2.0,))", "[Components]"}
