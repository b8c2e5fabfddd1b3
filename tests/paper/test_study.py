"""The study in a tiny form: real rows, going on after a kill, other settings refused."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mrviz
from mrviz.errors import InputError
from mrviz.paper import accuracy, bound, study, tables
from mrviz.paper.report import as_markdown, as_text
from mrviz.paper.settings import DEFAULT, FULL, QUICK, SIZES, mark_of, settings_of
from tests.paper.tiny import TINY

ROOT = Path(__file__).parents[2]


TINY_TASKS = {name: table.tasks(TINY) for name, table in study.TABLES.items()}


def test_every_question_is_answered(folder, rows):
    assert not study.missing(folder, TINY)
    found = study.answers(rows)
    numbers = {answer.question[0] for answer in found}
    assert numbers == {str(question.number) for question in study.QUESTIONS}
    assert all(not row.get("error") for row in rows["indicators"])
    for name, part in rows.items():
        assert len({row["task"] for row in part}) == len(TINY_TASKS[name]), name


def test_stored_verdicts_are_those_of_the_stored_tables(folder, rows):
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as file:
        stored = list(csv.DictReader(file))
    found = study.answers(rows)
    assert [(r["question"], r["verdict"]) for r in stored] == [
        (a.question, a.verdict) for a in found
    ]
    assert [int(r["runs"]) for r in stored] == [a.runs for a in found]


def test_rows_of_question_3_are_what_the_parts_give_by_hand(rows):
    row = next(
        r
        for r in rows["depth"]
        if (r["input_size"], r["seed"], r["depth"], r["program"]) == (9, 2, 3, "border")
    )
    source = mrviz.load_source(
        "dnn",
        depth=3,
        width=8,
        input_size=9,
        trained_on="mnist-5k",
        epochs=1,
        seed=2,
        progress=False,
    )
    target = mrviz.load_target("digits", n_train=10, n_test=20, seed=2)
    model = mrviz.reprogram(
        source, target, program="border", mapping="identity", image_size=6, seed=2
    )
    fit = mrviz.train(model, target, steps=2, seed=2, progress=False)
    assert row["train_loss"] == pytest.approx(fit.train_loss[-1], rel=1e-6)
    assert row["test_accuracy"] == pytest.approx(fit.test_accuracy[-1])
    assert row["source_accuracy"] == pytest.approx(source.training_report.test_accuracy)


def test_the_source_behind_features_is_as_accurate_as_its_head_was(rows):
    chosen = TINY["extractor"]
    task = accuracy.tasks(TINY)[1]
    source, report = accuracy.extractor_source(task, chosen, "cpu")
    data = accuracy.SourceData.load("digits", chosen["input_size"]).test
    with torch.no_grad():
        right = source(data[0].expand(-1, 3, -1, -1)).argmax(1) == data[1]
    # Round-off of another batch may turn a sample on the edge.
    assert float(right.double().mean()) == pytest.approx(report.test_accuracy, abs=2 / len(data[1]))
    row = next(r for r in rows["extractor"] if (r["seed"], r["depth"]) == (1, 2))
    assert row["source_accuracy"] == pytest.approx(report.test_accuracy)


def test_the_target_risk_is_that_of_its_definition():
    source = mrviz.load_source("dnn", depth=1, input_size=4, n_classes=3, progress=False)
    x, y = torch.rand(20, 1, 4, 4), torch.arange(20) % 3
    target = mrviz.Target(x, y, x, y)
    model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
    risk, error = bound.target_risk(model, target)
    total = []
    for sample, label in zip(x, y, strict=True):
        p = model(sample[None]).detach().double().softmax(1)[0]
        p[label] -= 1
        total.append(float(p.square().sum()) ** 0.5)
    assert risk == pytest.approx(sum(total) / 20)
    assert error == pytest.approx(2 * float(torch.tensor(total).std()) / math.sqrt(20), rel=1e-5)


def test_the_control_of_question_5_is_an_identity(rows):
    control = tables.where(rows["assumptions"], family="kernel regime")
    assert control and all(row["distance"] < 1e-9 for row in control)
    others = [r for r in rows["assumptions"] if r["family"] != "kernel regime"]
    assert all(row["inputs"] == 2 for row in others)


def only(folder, name="width", settings=TINY, **options):
    lines = []
    study.run(folder, settings=settings, tables=[name], report=lines.append, **options)
    return lines


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    table, made = study.TABLES["width"], []

    def interrupted(task, settings, device):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(task)
        return table.measure(task, settings, device)

    monkeypatch.setitem(study.TABLES, "width", replace(table, measure=interrupted))
    with pytest.raises(KeyboardInterrupt):
        only(tmp_path)
    path = tmp_path / "width.csv"
    before = path.read_text(encoding="utf-8")
    assert len(before.splitlines()) == 1 + 2 * 4
    assert study.missing(tmp_path, TINY)["width"] == len(TINY_TASKS["width"]) - 4
    monkeypatch.setitem(study.TABLES, "width", table)
    assert only(tmp_path)[0] == "width: 18 tasks, 4 done before"
    after = path.read_text(encoding="utf-8")
    assert after.splitlines()[:9] == before.splitlines()
    assert only(tmp_path) == ["width: 18 tasks, 18 done before"]
    assert path.read_text(encoding="utf-8") == after


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_process_leaves_whole_rows(tmp_path):
    code = (
        "from pathlib import Path; from tests.paper.tiny import TINY\n"
        "from mrviz.paper import study\n"
        f"study.run(Path({str(tmp_path)!r}), settings=TINY, tables=['kernels'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ))
    path, deadline = tmp_path / "kernels.csv", time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    found = tables.read(path, mark_of(TINY))
    assert found and len(found) % 3 == 0  # three draws a task
    lines = only(tmp_path, "kernels")
    done = len({row["task"] for row in found})
    assert lines[0] == f"kernels: {len(TINY_TASKS['kernels'])} tasks, {done} done before"
    assert not {"kernels"} & set(study.missing(tmp_path, TINY))


def test_other_settings_are_refused_and_nothing_is_changed(tmp_path):
    only(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = {**TINY, "width": {**TINY["width"], "n": 11}}
    with pytest.raises(InputError, match=r"width\.csv holds runs of other settings .*--folder"):
        only(tmp_path, settings=other)
    with pytest.raises(InputError, match="other settings"):
        study.load(tmp_path, settings=other)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="no table depht; the tables are kernels"):
        study.run(tmp_path, "quick", tables=["depht"])
    with pytest.raises(InputError, match="no size 'huge'; the sizes are default, quick, full"):
        settings_of("huge")
    with pytest.raises(InputError, match=r"no results in .*'mrviz study paper --folder"):
        study.about(tmp_path / "nowhere")
    (tmp_path / "kernels.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="other settings"):
        tables.read(tmp_path / "kernels.csv", "x")


def test_a_table_comes_back_as_it_was_written(tmp_path):
    rows = [{"task": "a", "settings": "m", "x": 0.25, "k": 3, "name": "dnn", "no": None}]
    rows += [{"task": "b", "settings": "m", "x": 1e-12, "flag": True}]
    tables.write(tmp_path / "t.csv", rows)
    found = tables.read(tmp_path / "t.csv", "m")
    assert found[0] == {**rows[0], "flag": None}
    assert found[1]["x"] == 1e-12 and found[1]["flag"] == 1 and found[1]["k"] is None
    assert tables.read(tmp_path / "none.csv", "m") == []


def test_how_it_was_made_is_kept(folder):
    found = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    assert found["mark"] == mark_of(TINY) and found["settings"] == TINY
    assert found["versions"]["mrviz"] == mrviz.__version__
    assert found["machine"]["device"] == "cpu" and found["machine"]["threads"] >= 1
    assert all(found["rows"][name] > 0 for name in study.TABLES)
    assert found["begun"] <= found["latest"]


def test_reports_hold_every_answer(folder, rows):
    found, about = study.answers(rows), study.about(folder)
    text, page = as_text(found, about), as_markdown(found, about)
    for answer in found:
        assert f"  {answer.question:5}{answer.verdict.upper()}" in text
        assert f"| {answer.question} | {answer.claim} | **{answer.verdict}** |" in page
    assert about["mark"] in text and all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("settings", [DEFAULT, QUICK, FULL], ids=SIZES)
def test_sizes_reach_every_table_with_different_tasks(settings):
    for name, table in study.TABLES.items():
        names = [tables.name_of(study._shown(task)) for task in table.tasks(settings)]
        assert names and len(set(names)) == len(names), name
    runs = len(study.TABLES["indicators"].tasks(settings))
    assert settings is QUICK or runs >= 60
    targets = {
        task["target"].startswith("ucr:") for task in study.TABLES["indicators"].tasks(settings)
    }
    assert targets == {True, False}


def test_the_marks_of_the_sizes_differ():
    assert len({mark_of(settings) for settings in SIZES.values()}) == 3
