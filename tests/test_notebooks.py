"""The notebooks run from top to bottom, one kernel each, and show pictures; none holds outputs.

That of DeepFloyd IF and PRXPixel runs here, on tiny models with random weights in their places.
"""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parent.parent / "examples" / "notebooks"
GPU = FOLDER / "deepfloyd-and-prx-on-one-gpu.ipynb"
HERE = {"start-here": 6, "illusions": 8, "a-plugin-in-ten-lines": 3}
"""{name: its pictures}"""


def read(path):
    return nbformat.read(path, as_version=4)


def test_each_is_listed_and_holds_no_outputs():
    found = sorted(FOLDER.glob("*.ipynb"))
    assert [p.stem for p in found] == sorted([*HERE, GPU.stem])
    listed = re.findall(r"\]\(([\w-]+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert sorted(listed) == [p.name for p in found]
    for path in found:
        notebook = read(path)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code), path.name
        assert path.stat().st_size < 20_000, path.name


@pytest.mark.parametrize("name", HERE)
def test_it_runs_and_shows_pictures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, without widgets
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(FOLDER / f"{name}.ipynb")
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    pictures = [out for out in outputs if {"image/png", "image/gif"} & set(out.get("data", ()))]
    assert len(pictures) == HERE[name]
    said = [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not said


def test_that_of_large_models_runs_on_tiny_ones(tiny_if, tmp_path, monkeypatch):
    tiny_prx = pytest.importorskip("tiny_prx", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)  # a folder of a model's name goes before the hub
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "DeepFloyd").mkdir()
    (tmp_path / "DeepFloyd" / "IF-I-XL-v1.0").symlink_to(tiny_if[1])
    (tmp_path / "DeepFloyd" / "IF-II-L-v1.0").symlink_to(tiny_if[2])
    tiny_prx.build(tmp_path / "Photoroom" / "prxpixel-t2i")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    names = {"__name__": "notebook"}
    for cell in read(GPU).cells:
        if cell.cell_type == "code" and not cell.source.startswith("%pip"):
            exec(compile(cell.source, GPU.name, "exec"), names)
    assert (tmp_path / "prx" / "0000.png").exists()
    assert (tmp_path / "people-hat.gif").exists()
