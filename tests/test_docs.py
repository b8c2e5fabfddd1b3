"""The guides say what is true: their Python runs, and so do their commands."""

import json
import re
import shlex
import sqlite3
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import mrviz
from mrviz._cache import cache_dir
from mrviz.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PYTHON = re.compile(r"(<!-- not run -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def run_page(page):
    """Runs the blocks of a page one after the other; returns their names."""
    names = {"__name__": page}
    for block in PYTHON.finditer(text_of(page)):
        if block[1] is None:
            line = text_of(page).count("\n", 0, block.start(2))
            exec(compile("\n" * line + block[2], str(DOCS / page), "exec"), names)
    return names


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """What the page about studies leaves behind."""
    for package in ("mlxtend", "sklearn", "plotly", "pandas"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("docs")
        patch.chdir(folder)
        return folder, run_page("studies.md")


def test_the_python_of_the_page_about_studies(studies):
    folder, names = studies
    assert (names["study"].total, names["study"].failed) == (8, 0)
    assert (names["again"].known, names["again"].done) == (8, 4)
    assert len(names["rows"]) == 12 and len(names["found"]) == 3
    page = (folder / "correlation.html").read_text(encoding="utf-8")
    assert "predicted held-out accuracy" in page
    assert all(column in names["rows"][0] for column in ("leep", "T11_value", "source_risk"))


def test_the_commands_of_the_page_about_studies(studies, capsys, monkeypatch):
    monkeypatch.chdir(studies[0])
    commands = re.findall(r"^\$ mrviz (study \w+ depth\.sqlite.*)$", text_of("studies.md"), re.M)
    assert len(commands) == 6
    for command in commands:
        assert main(shlex.split(command)) == 0, command
        assert capsys.readouterr().out
    assert Path("depth.csv").exists() and Path("pairs.html").exists()


def test_the_schema_on_the_page_is_that_of_the_file(studies):
    with sqlite3.connect(studies[0] / "depth.sqlite") as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    section = text_of("studies.md").partition("## The file")[2]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == columns
    assert f"0x{application:X}" in section and f"`user_version` {version}" in section


def test_the_python_of_the_page_about_rankings():
    for package in ("mlxtend", "sklearn", "pandas"):
        pytest.importorskip(package)
    names = run_page("rankings.md")
    assert len(names["ranking"]) == 4 and len(names["by_source"]) == 3
    assert all(row.error is None for row in (*names["ranking"], *names["by_source"]))
    assert names["best"] in names["ranking"].best


def test_the_python_of_the_page_about_training(tmp_path, monkeypatch):
    for package in ("mlxtend", "sklearn", "safetensors"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = run_page("training.md")
    assert names["resumed"].steps[0] == 0 and "after 5 of 80 steps" in names["resumed"].notes[-1]
    assert names["blind"].train_loss[-1] < names["blind"].train_loss[0]
    assert names["fit"].test_accuracy[-1] == names["loaded"].card["metrics"]["test_accuracy"]
    x = names["target"].x_test
    assert names["model"].predict(x).equal(names["again"].predict(x))


def test_the_python_of_the_page_about_autotune(tmp_path, monkeypatch):
    for package in ("mlxtend", "sklearn", "safetensors", "pandas", "optuna"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = run_page("autotune.md")
    tuning, several = names["tuning"], names["several"]
    assert tuning.steps == 400 and tuning.regret is not None
    x = names["target"].x_test
    assert names["model"].predict(x).equal(tuning.model.predict(x))
    assert {c.source for c in several.candidates} == {"trained", "random"}
    assert names["kept"].model is not None
    command = re.search(r"^\$ mrviz (autotune .*)$", text_of("autotune.md"), re.MULTILINE)
    assert main(shlex.split(command[1])) == 0
    assert Path("best", "card.json").exists()


def test_the_python_of_the_page_about_data(capsys):
    names = run_page("data.md")
    printed = capsys.readouterr().out
    table = text_of("data.md").partition("## Sources")[0]
    assert all(f"| `{name}` |" in table for name in names["to_download"])
    assert names["to_download"] == ["fashion-mnist", "cifar-10", "svhn", "usps"]
    assert "T-shirt/top" in printed and "Did you mean 'efficientnet-lite" in printed


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_local_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
        assert (DOCS / link).exists(), link


@pytest.mark.parametrize(
    "page", ["rankings.md", "studies.md", "teaching.md", "theory.md", "training.md", "gallery.md"]
)
def test_the_readme_leads_to_the_guides(page):
    assert f"](docs/{page})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reference_has_every_name_of_mrviz():
    page = text_of("reference/mrviz.md")
    documented = re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE)
    modules = {name for name in mrviz.__all__ if isinstance(getattr(mrviz, name), ModuleType)}
    assert sorted(documented) == sorted(set(mrviz.__all__) - modules)


def test_the_python_of_the_first_page(capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("mlxtend")
    names = run_page("start.md")
    assert names["gram"].matrix.shape == (640, 640)
    assert "T13" in capsys.readouterr().out


# --- teaching -------------------------------------------------------------------------------

ROW = re.compile(
    r"^\| `(\d\d-[\w-]+)` \|(.+?)\| (\d+) \| (\d+) \|(.+?)\| (\d+) s \|$", re.MULTILINE
)
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_teaching_page_says_how_many_exercises_and_minutes_a_notebook_has(lesson):
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    rows = {row[1]: row for row in ROW.finditer(text_of("teaching.md"))}
    assert set(rows) == {path.stem for path in LESSONS}
    exercises = re.findall(r"^## Exercise \d\d\.\d", text, re.MULTILINE)
    minutes = re.search(r"Time:\s(\d+)\sminutes", text)
    assert (int(rows[lesson.stem][3]), rows[lesson.stem][4]) == (len(exercises), minutes[1])
    assert f"## {lesson.stem}\n" in text_of("instructor.md")


def test_the_exercise_on_the_teaching_page_works(monkeypatch):
    monkeypatch.setattr("mrviz.classroom.exercises.EXERCISES", {})
    check = run_page("teaching.md")["check"]
    gram = SimpleNamespace(matrix=torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    assert check("99.1", 5, gram=gram).right
    assert "sum of all entries" in check("99.1", 7, gram=gram).message


def test_the_exam_has_an_answer_to_every_question():
    questions, _, answers = text_of("instructor.md").partition("### Answers")
    numbers = [re.findall(r"^(\d+)\. ", part, re.MULTILINE) for part in (questions, answers)]
    assert numbers[0] == numbers[1] == [str(k) for k in range(1, len(numbers[1]) + 1)]
    assert 15 <= len(numbers[0]) <= 20


def test_the_cache_folder_of_a_class_is_the_one_that_is_read(monkeypatch, tmp_path):
    (name,) = set(re.findall(r"`?(MRVIZ_\w+)`?", text_of("teaching.md")))
    monkeypatch.setenv(name, str(tmp_path))
    assert cache_dir() == tmp_path


def test_pictures_of_the_gallery_are_there_and_small():
    shown = re.findall(r"^```\{image\} (\S+)$", text_of("gallery.md"), re.MULTILINE)
    assert 4 <= len(shown) <= 6
    for picture in shown:
        assert (DOCS / picture).stat().st_size < 300_000, picture


def test_the_page_about_autotune_quotes_its_table():
    page = (DOCS / "autotune.md").read_text(encoding="utf-8")
    table = (DOCS.parent / "benchmarks" / "autotune.md").read_text(encoding="utf-8")
    lines = table.partition("## All together")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "±" in line]
    regret = {row[0]: row[2].partition(" ±")[0] for row in cells}
    quoted = "autotune was {} points below .*\n.*same number of steps {}, .*same time {}:".format(
        *(re.escape(regret[k]) for k in ("autotune", "random, same steps", "random, same seconds"))
    )
    assert re.search(quoted, page)
