"""Notebooks: paired, with stored results that show without a kernel, and they run."""

import json
import re
from pathlib import Path

import pytest

from mrviz.classroom import EXERCISES

FOLDER = Path(__file__).parents[1] / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
NOTEBOOKS = [*sorted(FOLDER.glob("*.ipynb")), *SOLUTIONS]
CLASSES = [FOLDER / path.name for path in SOLUTIONS]

NUMBER = re.compile(r"Exercise (\d\d\.\d)")
VERDICT = re.compile(r"^(\d\d\.\d) ([✓✗…]) ")
RESULTS = {
    "01-explorer": "Spectrum(order=640",
    "06-scaling": "Spectrum(order=640",
    "07-paper": "rows measured just now",
}
"""What a notebook shows when it has run, beside the verdicts of its exercises."""


def name_of(path):
    return str(path.relative_to(FOLDER).with_suffix(""))


def texts(notebook):
    """What the cells of an executed notebook show, as text."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return ["".join(o.get("data", {}).get("text/plain", o.get("text", ""))) for o in outputs]


def verdicts(notebook):
    """Exercises and the marks of their verdicts, in order."""
    found = [VERDICT.match(text) for text in texts(notebook)]
    return [(match[1], match[2]) for match in found if match]


def statements(path):
    """The text of each exercise in its cell, by its number."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    parts = [part for text in texts for part in re.split(r"^## ", text, flags=re.MULTILINE)]
    return {match[1]: part.strip() for part in parts if (match := NUMBER.match(part))}


@pytest.fixture(params=NOTEBOOKS, ids=name_of)
def path(request):
    return request.param


@pytest.fixture(params=CLASSES, ids=name_of)
def lesson(request):
    """A notebook with exercises."""
    return request.param


def test_every_notebook_has_exercises_and_solutions():
    assert [path for path in NOTEBOOKS if path not in SOLUTIONS] == CLASSES
    assert all(len(statements(lesson)) >= 5 for lesson in CLASSES)


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
    assert "image/png" in kinds or path in SOLUTIONS
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
    mark = "✓" if path in SOLUTIONS else "…"
    assert verdicts(notebook) == [(number, mark) for number in statements(path)]
    assert any(RESULTS.get(name_of(path), "") in text for text in texts(notebook))


def test_exercises_of_notebooks_solutions_and_checks_are_the_same():
    of_lessons = {k: text for lesson in CLASSES for k, text in statements(lesson).items()}
    of_solutions = {k: text for path in SOLUTIONS for k, text in statements(path).items()}
    assert sorted(of_lessons) == sorted(of_solutions) == sorted(EXERCISES)
    for number, text in of_lessons.items():
        assert of_solutions[number].startswith(text), f"exercise {number} is stated differently"


def test_an_exercise_has_a_gap_and_a_check(lesson):
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    tagged = {
        tag: ["".join(c["source"]) for c in cells if tag in c["metadata"].get("tags", ())]
        for tag in ("exercise", "check")
    }
    numbers = list(statements(lesson))
    assert all("..." in source for source in tagged["exercise"])
    assert len(tagged["exercise"]) == len(numbers)
    assert [re.search(r'check\("(.*?)"', source)[1] for source in tagged["check"]] == numbers


def test_a_lesson_makes_slides(lesson):
    nbconvert = pytest.importorskip("nbconvert")
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    kinds = [cell["metadata"].get("slideshow", {}).get("slide_type") for cell in cells]
    assert None not in kinds, f"cell {kinds.index(None)} has no slide_type"
    assert kinds.count("slide") >= 8
    body, _ = nbconvert.SlidesExporter().from_filename(str(lesson))
    assert body.count("<section>") >= kinds.count("slide")
