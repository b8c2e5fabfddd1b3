"""``mrviz study paper``: runs, reports and figures, and errors with advice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrviz.cli import main
from mrviz.paper import settings, study
from tests.paper.tiny import TINY

for package in ("mlxtend", "sklearn", "aeon"):
    pytest.importorskip(package)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The tiny settings as the quick ones, in a folder of their own."""
    monkeypatch.setitem(settings.SIZES, "quick", TINY)
    monkeypatch.chdir(tmp_path)


def paper(capsys, *argv, status=0):
    """What the command prints on both streams."""
    assert main(["study", "paper", *map(str, argv)]) == status
    return capsys.readouterr()


def test_run_report_and_figures(capsys, tmp_path):
    made = paper(capsys, "--quick", "--tables", "width", "kernels", "assumptions")
    assert "1. Does λ_min[K_S] grow with depth?" in made.out
    assert "kernels 1/" in made.err and "not finished:" in made.err
    again = paper(capsys, "--quick", "--tables", "kernels")
    assert "kernels 1/" not in again.err and again.out.count("AGREES") == made.out.count("AGREES")
    report = paper(capsys, "--report", "--folder", "paper-quick", "--html", "page.html")
    assert report.out == again.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1. Does λ_min[K_S] grow with depth?" in page and page.count("plotly-graph-div") == 2
    found = json.loads(paper(capsys, "--quick", "--report", "--json").out)
    assert found["about"]["command"] == "mrviz study paper --quick --tables kernels"
    assert {a["question"][0] for a in found["answers"]} == {"1", "5"}
    markdown = paper(capsys, "--quick", "--report", "--markdown").out
    assert markdown.count("\n### ") == 2 and "| 1a |" in markdown


def test_the_results_that_come_with_mrviz(capsys):
    found = json.loads(paper(capsys, "--report", "--json").out)
    assert found["about"]["size"] == "default"
    assert [a["verdict"] for a in found["answers"]] == [
        a.verdict for a in study.answers(study.load())
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--report", "--folder", "nowhere"], "there are no results in nowhere"),
        (["--report", "--tables", "width"], "--report runs nothing"),
        (["--quick", "--tables", "wdth"], "there is no table wdth"),
        (["--quick", "--tables", "width", "--device", "cud"], "device"),
    ],
)
def test_mistakes_are_explained(capsys, argv, message):
    found = paper(capsys, *argv, status=2)
    assert message in found.err and "Traceback" not in found.err


def test_runs_of_another_size_in_the_folder_are_refused(capsys):
    paper(capsys, "--quick", "--folder", "here", "--tables", "width")
    found = paper(capsys, "--full", "--folder", "here", "--tables", "width", status=2)
    assert "holds runs of other settings" in found.err and "--folder" in found.err


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="no Ctrl-C here")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    code = (
        "from mrviz.paper import settings; from tests.paper.tiny import TINY\n"
        "settings.SIZES['quick'] = TINY\n"
        "from mrviz.cli import main\n"
        "raise SystemExit(main(['study', 'paper', '--quick', '--folder', "
        f"{str(tmp_path / 'here')!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    path, deadline = tmp_path / "here" / "kernels.csv", time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped. All finished rows are kept" in said and "mrviz study paper --quick" in said
