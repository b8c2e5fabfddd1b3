"""The stored results: complete, of these settings, and what page and verdicts say of them."""

import csv
from pathlib import Path

import pytest

from mrviz.paper import study
from mrviz.paper.report import as_markdown
from mrviz.paper.settings import DEFAULT, mark_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def answers():
    return study.answers(study.load())


def test_all_runs_of_the_default_size_are_there():
    assert study.about()["mark"] == mark_of(DEFAULT)
    assert study.about()["settings"] == DEFAULT
    assert study.missing(study.STORED, DEFAULT) == {}


def test_question_4_has_enough_runs_of_both_kinds():
    rows = [r for r in study.load()["indicators"] if r["test_accuracy"] is not None]
    assert len(rows) >= 60
    assert {r["kind"] for r in rows} == {"image", "series"}
    assert not any(r.get("seed") == 0 for part in study.load().values() for r in part)


def test_stored_verdicts_follow_from_the_stored_tables(answers):
    with (study.STORED / "answers.csv").open(encoding="utf-8", newline="") as file:
        stored = list(csv.DictReader(file))
    assert [(r["question"], r["claim"], r["verdict"]) for r in stored] == [
        (a.question, a.claim, a.verdict) for a in answers
    ]
    for row, answer in zip(stored, answers, strict=True):
        ends = answer.interval or (None, None)
        for name, value in (("statistic", answer.statistic), ("low", ends[0]), ("high", ends[1])):
            if value is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_the_page_says_what_the_command_prints(answers):
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    generated = page.partition("<!-- answers -->\n")[2].partition("<!-- /answers -->")[0]
    assert generated.strip() == as_markdown(answers, study.about()).strip()
    assert f"{len(study.load()['indicators'])} runs of `mrviz.study`" in page


def test_every_question_has_a_verdict(answers):
    assert {a.question[0] for a in answers} == {"1", "2", "3", "4", "5", "6"}
