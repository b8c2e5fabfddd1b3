"""Notebooks: paired, with stored results that show without a kernel, and they run."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SAID = {"07-paper": "Markdown"}
"""What one of the results of a notebook says as text, where it is not a spectrum."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request):
    return request.param


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_it_is_stored_for_readers_without_a_kernel(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]
    assert path.stat().st_size < 3_000_000
    kinds = set()
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            kinds |= output.get("data", {}).keys()
    assert "image/png" in kinds
    assert "application/vnd.jupyter.widget-view+json" not in kinds


def test_script_and_notebook_are_the_same(path):
    jupytext = pytest.importorskip("jupytext")
    stored = jupytext.read(path)
    script = jupytext.read(path.with_suffix(".py"))
    assert [(c.cell_type, c.source) for c in stored.cells] == [
        (c.cell_type, c.source) for c in script.cells
    ]


@pytest.mark.slow
def test_it_runs(path):
    jupytext = pytest.importorskip("jupytext")
    client = pytest.importorskip("nbclient")
    notebook = jupytext.read(path.with_suffix(".py"))
    resources = {"metadata": {"path": str(FOLDER.parent)}}
    client.NotebookClient(notebook, timeout=600, resources=resources).execute()
    texts = [
        "".join(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    said = SAID.get(path.stem, "Spectrum(order=640")
    assert any(said in text for text in texts)
