"""``mrviz study``: real small studies, going on after Ctrl-C, tables, and errors with advice."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mrviz
from mrviz.cli import grid_file, main, study
from mrviz.study import configurations, correlate, load
from mrviz.study import measure as module
from mrviz.study.store import Row, Store

GRID = {
    "source": "dnn",
    "depth": 2,
    "width": 16,
    "input_size": 10,
    "target": "digits",
    "n": 10,
    "n_test": 30,
    "program": ["border", "linear"],
    "steps": 4,
    "seed": [0, 1],
}
PAIRS = ["--indicators", "predicted_loss", "lambda_max", "--outcomes", "test_loss", "test_accuracy"]
BARE = {**GRID, "program": "border", "indicators": False}


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def command(capsys, *argv, status=0):
    """What a command prints on both streams."""
    assert main(["study", *map(str, argv)]) == status
    return capsys.readouterr()


def written(path, grid):
    path.write_text(grid if isinstance(grid, str) else json.dumps(grid))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a grid and its study."""
    place = tmp_path_factory.mktemp("study")
    grid = written(place / "grid.json", GRID)
    assert main(["study", "run", str(grid), str(place / "study.sqlite")]) == 0
    return place


def test_a_run_is_what_the_library_runs_and_a_second_one_repeats_nothing(folder, capsys):
    path, grid = folder / "study.sqlite", folder / "grid.json"
    rows = load(path)
    assert [row["key"] for row in rows] == [c.key for c in configurations(GRID)]
    assert all(row["status"] == "done" for row in rows)
    shown = command(capsys, "run", grid, path)
    assert f"4 runs in {grid}, 4 known in {path}" in shown.out
    assert "0 done and 0 failed" in shown.out and load(path) == rows


def test_progress_without_a_terminal_is_lines_with_the_time_left(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REPORT_SECONDS", 0.0)
    shown = command(capsys, "run", written(tmp_path / "g.json", BARE), tmp_path / "s.sqlite")
    assert "0 of 2: study" in shown.err and "1 of 2: study, " in shown.err and "left" in shown.err
    assert "2 runs in" in shown.out and "2 done and 0 failed" in shown.out


def test_show_as_a_table(folder, capsys):
    larger = written(folder / "larger.json", {**GRID, "seed": [0, 1, 2]})
    text = command(capsys, "show", folder / "study.sqlite", "--grid", larger).out
    head, _, table = text.partition("\n\n")
    assert "4 done, 0 failed, 2 left" in head and "source dnn" in head and "depth 2" in head
    titles, *lines = [line.split() for line in table.splitlines()]
    assert titles == ["program", "seed", "predicted_accuracy", "test_accuracy", "seconds", "status"]
    for line, row in zip(lines, load(folder / "study.sqlite"), strict=True):
        assert line[:2] == [row["program"], str(row["seed"])] and line[-1] == "done"
        assert float(line[3]) == pytest.approx(row["test_accuracy"], rel=1e-3)
    text = command(capsys, "show", folder / "study.sqlite").out
    assert "4 done, 0 failed\n" in text  # nobody can know what is left without a grid


def test_show_one_grid_of_several_in_a_file(folder, capsys):
    part = written(folder / "part.json", {**GRID, "program": "linear"})
    text = command(capsys, "show", folder / "study.sqlite", "--grid", part, "--json").out
    found = json.loads(text, parse_constant=refuse)
    assert (found["done"], found["failed"], found["left"]) == (2, 0, 0)
    rows = [row for row in load(folder / "study.sqlite") if row["program"] == "linear"]
    assert found["rows"] == study._plain(rows)


def test_show_as_json_has_no_number_that_json_does_not_have(capsys, tmp_path):
    path, (chosen,) = (
        tmp_path / "s.sqlite",
        configurations({**GRID, "program": "border", "seed": 0}),
    )
    with Store(path) as store:
        store.write(Row(chosen.key, chosen.text, indicators={"logme": float("inf"), "rank": 3}))
    found = json.loads(command(capsys, "show", path, "--json").out, parse_constant=refuse)
    assert found["left"] is None
    assert found["rows"][0]["logme"] is None and found["rows"][0]["rank"] == 3


def test_csv_has_every_column_of_every_row(folder, capsys, tmp_path):
    shown = command(capsys, "show", folder / "study.sqlite", "--csv", tmp_path / "rows.csv")
    assert "4 done" in shown.out and "rows.csv" in shown.err
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for line, row in zip(found, load(folder / "study.sqlite"), strict=True):
        assert set(line) == set(row)
        assert float(line["test_loss"]) == row["test_loss"] and line["key"] == row["key"]
        assert json.loads(line["versions"]) == row["versions"] and line["error"] == ""


def test_correlate_as_json_is_what_the_library_finds(folder, capsys):
    path = folder / "study.sqlite"
    options = ["--groups", "program", "seed", "--bootstrap", "30", "--seed", "5"]
    text = command(capsys, "correlate", path, *PAIRS, *options, "--json").out
    found = json.loads(text, parse_constant=refuse)
    for method in ("spearman", "kendall"):
        expected = correlate(
            load(path),
            ["predicted_loss", "lambda_max"],
            ["test_loss", "test_accuracy"],
            method=method,
            groups=["program", "seed"],
            bootstrap=30,
            seed=5,
        )
        assert found[method] == expected.to_dict()["items"] and len(found[method]) == 4
    assert found["rows"] == 4 and found["groups"] == ["program", "seed"]


def test_correlate_as_tables(folder, capsys):
    path = folder / "study.sqlite"
    shown = command(capsys, "correlate", path, *PAIRS[:3], "source_accuracy", "--bootstrap", "40")
    spearman, kendall = shown.out.split("\nKendall")
    names = ["predicted_loss", "lambda_max", "source_accuracy"]
    for method, sign, text in (("spearman", "ρ", spearman), ("kendall", "τ", kendall)):
        assert sign in text and "corrected for 3 pairs (Holm)" in text and "40 resamples" in text
        found = correlate(load(path), names, method=method, bootstrap=40)
        for item in found:
            (line,) = [line for line in text.splitlines() if line.startswith(item.indicator)]
            if item.coefficient is None:
                assert item.note in line and item.indicator == "source_accuracy"
            else:
                assert line.split()[2] == f"{item.coefficient:+.2f}"
                assert item.low is None or f"[{item.low:+.2f}, {item.high:+.2f}]" in line
    none = command(capsys, "correlate", path, "--indicators", "lambda_max", "--bootstrap", "0")
    assert "interval" not in none.out


def test_figures_of_all_pairs_in_one_page(folder, capsys, tmp_path):
    pytest.importorskip("plotly")
    page = tmp_path / "page.html"
    options = ["--bootstrap", "0", "--html", page]
    shown = command(capsys, "correlate", folder / "study.sqlite", *PAIRS, *options)
    text = page.read_text(encoding="utf-8")
    assert text.count("Plotly.newPlot(") == 4 and "page.html" in shown.err
    assert "https://cdn" not in text.partition("Plotly.newPlot(")[2]
    assert "held-out accuracy after training" in text


def test_figures_without_plotly(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly", None)
    options = ["--html", tmp_path / "page.html"]
    shown = command(capsys, "correlate", folder / "study.sqlite", *PAIRS, *options, status=2)
    assert 'pip install "mrviz[lab]"' in shown.err and shown.out == ""
    assert not (tmp_path / "page.html").exists()


def test_failed_runs_are_told_and_repeated_when_asked(capsys, tmp_path, monkeypatch):
    path, grid = tmp_path / "s.sqlite", written(tmp_path / "g.json", BARE)
    real, calls = module.train, []

    def fails(model, target, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of luck")
        return real(model, target, **options)

    monkeypatch.setattr(module, "train", fails)
    shown = command(capsys, "run", grid, path, status=1)
    assert "1 done and 1 failed" in shown.out
    assert "1 run of this grid failed" in shown.err and "out of luck" in shown.err
    shown = command(capsys, "run", grid, path, status=1)
    assert "0 done and 0 failed" in shown.out and "1 run of this grid failed" in shown.err
    text = command(capsys, "show", path).out
    assert "1 done, 1 failed" in text and "seed 0: RuntimeError: out of luck" in text
    shown = command(capsys, "run", grid, path, "--retry-failed")
    assert "1 done and 0 failed" in shown.out and "failed" not in shown.err and len(calls) == 3


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(capsys, tmp_path):
    path = tmp_path / "s.sqlite"
    grid = written(tmp_path / "g.json", {**BARE, "seed": list(range(40)), "steps": 30})
    # A process started in the background may ignore Ctrl-C: the handler is put back first.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mrviz.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "study", "run", str(grid), str(path)]
    process = subprocess.Popen(
        argv, cwd=Path(mrviz.__file__).parents[1], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not path.exists() or len(load(path)) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    kept = load(path)
    assert process.returncode == 130 and 3 <= len(kept) < 40
    assert f"{len(kept)} rows of 40 are kept in {path}" in errors and "Traceback" not in errors
    assert f"mrviz study run {grid} {path}" in errors
    shown = command(capsys, "run", grid, path)
    assert f"{len(kept)} known" in shown.out and f"{40 - len(kept)} done" in shown.out
    assert load(path)[: len(kept)] == kept and len(load(path)) == 40


def test_on_a_cluster(capsys, tmp_path):
    distributed = pytest.importorskip("distributed")
    path, grid = tmp_path / "s.sqlite", written(tmp_path / "g.json", BARE)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
        shown = command(capsys, "run", grid, path, "--dask", cluster.scheduler_address)
    assert "2 done and 0 failed" in shown.out and len(load(path)) == 2


@pytest.mark.parametrize("address", ["nowhere", "tcp://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer(capsys, tmp_path, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr(study, "CONNECT_SECONDS", 0.5)
    grid = written(tmp_path / "g.json", BARE)
    shown = command(capsys, "run", grid, tmp_path / "s.sqlite", "--dask", address, status=2)
    assert address in shown.err and "dask scheduler" in shown.err
    assert not (tmp_path / "s.sqlite").exists()


def test_a_cluster_without_dask(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    grid = written(tmp_path / "g.json", BARE)
    shown = command(capsys, "run", grid, tmp_path / "s.sqlite", "--dask", "tcp://h:1", status=2)
    assert 'pip install "mrviz[cluster]"' in shown.err


def test_the_example_is_a_grid_in_both_formats(capsys, tmp_path):
    toml = written(tmp_path / "g.toml", command(capsys, "example").out)
    plain = written(tmp_path / "g.json", command(capsys, "example", "--json").out)
    runs = grid_file.read_grid(toml)
    assert runs == grid_file.read_grid(plain) and f"{len(runs)} small runs" in toml.read_text()


def test_a_file_is_one_table_several_or_several_with_something_shared(tmp_path):
    border, linear = {"program": "border", "capacity": [1, 2]}, {"program": "linear"}
    shared = {"source": "dnn", "depth": 2, "target": "digits", "width": None}
    expected = configurations([{**shared, **border}, {**shared, **linear}])
    joined = {**shared, "grids": [border, linear]}
    apart = [{**shared, **border}, {**shared, **linear}]
    toml = (
        'source = "dnn"\ndepth = 2\ntarget = "digits"\n'
        '[[grids]]\nprogram = "border"\ncapacity = [1, 2]\n[[grids]]\nprogram = "linear"\n'
    )
    assert grid_file.read_grid(written(tmp_path / "a.json", joined)) == expected
    assert grid_file.read_grid(written(tmp_path / "b.json", apart)) == expected
    assert grid_file.read_grid(written(tmp_path / "c.TOML", toml)) == expected


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("none.toml", None, "mrviz study example > "),
        ("none.json", None, "mrviz study example --json"),
        ("grid.yaml", "source: dnn", "ends in .json or .toml"),
        ("study.sqlite", "", "ends in .json or .toml"),
        ("grid.json", '{"source": "dnn",}', "not valid JSON"),
        ("grid.json", '{"seed": 1, "n": 20, "seed": 2}', "'seed' is given more than once"),
        ("grid.json", '{"source": "dnn", "lr": NaN}', "NaN is not a number"),
        ("grid.toml", "source = dnn", "not valid TOML"),
        ("grid.toml", 'seed = 1\nsource = "dnn"\nseed = 2', "Cannot overwrite a value"),
        ("grid.json", b"\xff\xfe", "not valid JSON"),
        ("grid.json", '{"sources": "dnn"}', "a study has no choice sources; the choices are"),
        ("grid.json", '"dnn"', "a grid is a table of choices"),
        ("grid.json", "[1]", "a grid is a mapping"),
        ("grid.json", "[]", "the grid is empty"),
        ("grid.json", '{"grids": []}', "the grid is empty"),
        ("grid.json", '{"seed": []}', "the grid is empty"),
        ("grid.json", '{"grids": {"n": 3}}', "grids must be a list of tables"),
        ("grid.toml", "n = 20\n[[grids]]\nn = 30", "n is given both"),
        ("grid.toml", 'source = "dnn"\nn = 2020-01-01', "got a date"),
        ("grid.json", '{"source": "dmm"}', "resnet"),
        ("grid.json", '{"source": "dnn", "steps": 0}', "steps"),
        ("folder.json", "folder", "cannot be read"),
    ],
)
def test_a_file_that_is_no_grid_is_told_with_its_name(capsys, tmp_path, name, text, advice):
    path = tmp_path / name
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    shown = command(capsys, "run", path, tmp_path / "s.sqlite", status=2)
    assert advice in shown.err and str(path) in shown.err and shown.out == ""
    assert not (tmp_path / "s.sqlite").exists()


@pytest.mark.parametrize("kind", ["missing", "text", "database"])
def test_a_file_that_is_no_study(capsys, tmp_path, kind):
    path, grid = tmp_path / "rows.db", written(tmp_path / "g.json", BARE)
    if kind == "text":
        path.write_text("not a database, but rather longer than the head of one would be" * 9)
    if kind == "database":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes() if path.exists() else None
    asked = [["show", path], ["correlate", path, *PAIRS]]
    for words in asked if kind == "missing" else [*asked, ["run", grid, path]]:
        shown = command(capsys, *words, status=2)
        assert str(path) in shown.err and "study" in shown.err and "Traceback" not in shown.err
        assert shown.out == ""
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["correlate", "STUDY", "--indicators", "lambda"], "no row has a column 'lambda'"),
        (["correlate", "STUDY", "--indicators", "program"], "must hold numbers"),
        (["correlate", "STUDY", *PAIRS, "--groups", "planet"], "'planet' to group by"),
        (["correlate", "STUDY", *PAIRS, "--bootstrap", "-1"], "bootstrap"),
        (["correlate", "STUDY"], "--indicators"),
        (["show", "STUDY", "--csv", "FOLDER"], "cannot be written"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_on_the_command_line(folder, capsys, words, advice):
    places = {"STUDY": str(folder / "study.sqlite"), "FOLDER": str(folder)}
    try:
        status = main(["study", *(places.get(word, word) for word in words)])
    except SystemExit as stopped:  # argparse
        status = stopped.code
    shown = capsys.readouterr()
    assert status == 2 and advice in shown.err and shown.out == ""
    assert "Traceback" not in shown.err


def test_a_study_without_rows(capsys, tmp_path):
    path = tmp_path / "s.sqlite"
    Store(path).__exit__()
    assert "0 done, 0 failed" in command(capsys, "show", path).out
    assert "no rows" in command(capsys, "correlate", path, *PAIRS, status=2).err
