"""Sweeps: the images of ``sample``, and nothing lost but the batch in hand, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import product

import numpy as np
import psutil
import pytest
from PIL import Image

import composer
from composer import Sampler
from composer.limits import MAX_STEPS
from composer_plugins import CFG, Anagram
from composer_studio.folders import read_rows
from composer_studio.remembered import read_memory
from composer_studio.sweeps.folder import SweepFolder, opened
from composer_studio.sweeps.plan import plan_of
from composer_studio.sweeps.running import locally, sweep

VIEWS = {"identity": 6, "rotate_180": 9}


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture, dtype=int)


def pictures(folder):
    return sorted(p.name for p in folder.glob("*.png"))


def check_whole(folder, count):
    """The folder is an imagefolder of so many pictures, all of which can be read."""
    names = [row["file_name"] for row in read_rows(folder)]
    assert Counter(names) == Counter(pictures(folder))
    assert len(names) == count
    for name in names:
        assert pixels(folder / name).shape == (28, 28)
    hidden = {p.name for p in folder.iterdir()} - {*names}
    assert hidden <= {"metadata.jsonl", ".sweep.json", ".composer.lock"}


def test_a_sweep_is_all_combinations_and_each_is_what_sample_makes(studio, six_nine, tmp_path):
    out = tmp_path / "out"
    done = studio("sweep", six_nine, "--seeds", "0:3", "--batch", 2, "--out", out,
               "--over", "plugins.cfg.scale=2,5", "--over", "steps=2,3")  # fmt: skip
    assert done.exit_code == 0, done.output
    check_whole(out, 12)
    backend = composer.load_backend("mnist")
    rows = read_rows(out)
    said = [(r["plugins_cfg_scale"], r["steps"], r["seed"]) for r in rows]
    assert said == list(product((2, 5), (2, 3), range(3)))
    for row in rows[::5]:
        sampler = Sampler(
            backend,
            [Anagram(VIEWS), CFG(row["plugins_cfg_scale"])],
            num_inference_steps=row["steps"],
        )
        image = sampler.sample(seeds=[row["seed"]]).images[0]
        assert abs(pixels(out / row["file_name"]) - np.asarray(image, dtype=int)).max() <= 1
    assert "the same picture" in studio("replay", out / rows[-1]["file_name"]).stdout


def test_a_sweep_takes_as_many_steps_as_sample(studio, six_nine, tmp_path):
    for place, steps in (("typed", ["--steps", 2]), ("set", ["--set", "steps=2"])):
        done = studio("sweep", six_nine, "--seeds", "3", "--out", tmp_path / place, *steps)
        assert done.exit_code == 0, done.output
    names = {row["file_name"] for place in ("typed", "set") for row in read_rows(tmp_path / place)}
    (name,) = names
    typed, written = (pixels(tmp_path / place / name) for place in ("typed", "set"))
    assert (typed == written).all()
    assert read_memory(tmp_path / "typed" / name).recipe["num_inference_steps"] == 2
    assert "--steps" in studio("sweep", "--help").output
    for steps in (0, MAX_STEPS + 1):
        done = studio("sweep", six_nine, "--steps", steps, "--out", tmp_path / "none")
        assert done.exit_code == 2
        assert "--steps" in done.stderr


def test_more_seeds_go_on_and_another_recipe_does_not(studio, six_nine, tmp_path):
    out = tmp_path / "out"
    assert "3 pictures" in studio("sweep", six_nine, "--seeds", "0:3", "--out", out).stdout
    assert "5 pictures in" in (more := studio("sweep", six_nine, "--out", out)).stdout
    assert "2 of them made now" in more.stdout
    assert "0 of them made now" in studio("sweep", six_nine, "--out", out).stdout
    other = studio("sweep", six_nine, "--out", out, "--set", "steps=2")
    assert other.exit_code == 2
    assert "holds a sweep of another recipe" in other.stderr
    foreign = studio("sweep", six_nine, "--out", tmp_path)
    assert "files that no sweep made" in foreign.stderr
    check_whole(out, 5)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("steps", "--over must be such as plugins.cfg.scale=2,3,5"),
        ("seeds=1,2", "--over must be of what makes an image"),
        ("plugins.cfg.scal=2", "Did you mean scale?"),
        (f"steps={','.join(map(str, range(1, 1002)))}", "at most are 1000"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_leaves_nothing(studio, six_nine, tmp_path, over, said):
    done = studio("sweep", six_nine, "--out", tmp_path / "out", "--over", over)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_sweeps_on_one_folder_raise(studio, six_nine, tmp_path):
    plan = plan_of(six_nine, {}, [])
    with opened(tmp_path / "out", plan):
        done = studio("sweep", six_nine, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "another command is writing into it" in done.stderr


class Killed(BaseException):
    """Stands for a kill: nothing that cleans up runs."""


@pytest.mark.parametrize("place", ["before", "half moved", "moved", "half noted"])
def test_a_kill_at_any_moment_of_a_commit_loses_the_batch_alone(
    six_nine, tmp_path, monkeypatch, place
):
    out, plan = tmp_path / "out", plan_of(six_nine, {}, [])
    commit, commits = SweepFolder.commit, []

    def killed(self, job, files):
        commits.append(job)
        if len(commits) == 1:
            return commit(self, job, files)
        names = [self._plan.name_of(job.variant, seed) for seed in job.seeds]
        moved = {"before": 0, "half moved": 1}.get(place, len(files))
        for one, name in list(zip(files, names, strict=True))[:moved]:
            one.replace(self.path / name)
        if place == "half noted":
            line = json.dumps(self._plan.row_of(job.variant, job.seeds[0]))
            with (self.path / "metadata.jsonl").open("a") as metadata:
                metadata.write(line[: len(line) // 2])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SweepFolder, "commit", killed)
        with pytest.raises(Killed):
            sweep(plan, out, batch=2)
    assert len(read_rows(out)) == 2
    assert sweep(plan, out, batch=2) == 3
    check_whole(out, 5)


@pytest.mark.parametrize("ray", [(), ("--ray", "--workers", "1")], ids=["here", "ray"])
def test_kill_9_of_a_sweep_and_the_same_command_goes_on(studio, six_nine, tmp_path, ray):
    """Of Ray it is the driver; its workers end with it, and Ray's agents a minute later."""
    if ray:
        pytest.importorskip("ray")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from composer_studio.cli.sweep import sweep; sweep()",
        six_nine,
        "--seeds",
        "0:400",
        "--batch",
        "2",
        "--out",
        out,
        "--set",
        "steps=8",
        *ray,
    ]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(read_rows(out)) < 6 and time.monotonic() < until:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if _is_worker(child)]
    assert bool(workers) == bool(ray)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    for agent in children:
        with suppress(psutil.NoSuchProcess):
            agent.kill()
    noted = len(read_rows(out))
    assert 6 <= noted < 400
    assert len(pictures(out)) - noted <= 2
    done = studio("sweep", six_nine, "--seeds", f"0:{noted + 3}", "--out", out, "--set", "steps=8")
    assert done.exit_code == 0, done.output
    assert "3 of them made now" in done.stdout
    check_whole(out, noted + 3)


def test_ctrl_c_says_that_the_same_command_goes_on(studio, six_nine, tmp_path, monkeypatch):
    commit = SweepFolder.commit

    def stopped(self, job, files):
        commit(self, job, files)
        raise KeyboardInterrupt

    monkeypatch.setattr(SweepFolder, "commit", stopped)
    done = studio("sweep", six_nine, "--batch", 2, "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert "2 of 5 images are whole" in done.stderr
    check_whole(tmp_path / "out", 2)


def test_datasets_opens_the_folder(studio, six_nine, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert (
        studio("sweep", six_nine, "--out", tmp_path / "out", "--over", "steps=2,3").exit_code == 0
    )
    opened = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(opened) == 10
    assert sorted(opened["seed"]) == sorted([*range(5)] * 2)
    assert opened[0]["image"].size == (28, 28)


def test_a_worker_of_ray_is_killed_and_no_image_is_missing(six_nine, tmp_path):
    ray = pytest.importorskip("ray")
    from composer_studio.sweeps.on_ray import RayEngine

    plan = plan_of(six_nine, {"seeds": "0:24", "steps": 8}, [])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed = []
    try:
        engine = RayEngine(workers=2)

        def watched(*arguments):
            for number, finished in enumerate(engine(*arguments)):
                if number == 1:
                    killed.append(_kill_one())
                yield finished

        assert sweep(plan, tmp_path / "out", 2, engine=watched) == 24
    finally:
        ray.shutdown()
    assert killed[0]
    check_whole(tmp_path / "out", 24)
    sweep(plan, tmp_path / "here", 2, engine=locally)
    for name in pictures(tmp_path / "here"):
        assert abs(pixels(tmp_path / "here" / name) - pixels(tmp_path / "out" / name)).max() <= 1


def _is_worker(process):
    return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::Remote")


def _kill_one():
    """Kill a worker of this process's Ray; its pid, or None."""
    for child in psutil.Process().children(recursive=True):
        if _is_worker(child):
            os.kill(child.pid, signal.SIGKILL)
            return child.pid
    return None


def test_ray_that_is_not_there_is_one_line(studio, six_nine, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = studio("sweep", six_nine, "--out", tmp_path / "out", "--ray")
    assert done.exit_code == 2
    assert "--ray needs ray" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_one_line_at_once(studio, six_nine, tmp_path, address):
    pytest.importorskip("ray")
    done = studio("sweep", six_nine, "--out", tmp_path / "out", "--ray", address)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"nothing answers at {address}" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "over", [["plugins.cfg.scale=2,3,2"], ["plugins.cfg.scale=2", "plugins.cfg.scale=3"]]
)
def test_a_value_or_a_path_twice_would_make_the_same_pictures_twice(
    studio, six_nine, tmp_path, over
):
    options = [part for text in over for part in ("--over", text)]
    done = studio("sweep", six_nine, *options, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "once" in done.stderr
    assert not (tmp_path / "out").exists()
