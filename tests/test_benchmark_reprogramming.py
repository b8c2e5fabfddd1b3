"""The table source × program × mapping: complete, and the page is what the stored runs say."""

import importlib
import sys
from pathlib import Path

import pytest

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[1]
STORED = ROOT / "benchmarks" / "results" / "reprogramming.csv"
PAGE = ROOT / "benchmarks" / "reprogramming.md"


@pytest.fixture(scope="module")
def script():
    """The benchmark, found as it finds its helpers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("reprogramming")
    sys.modules.pop("reprogramming", None)


def rows(script, *runs):
    """Runs on digits: program, mapping, seed, validation and test accuracy."""
    names = ("program", "mapping", "seed", "val_accuracy", "test_accuracy")
    shared = {"target": "digits", "source": "cnn", "trained_on": "mnist-5k", "cpu_seconds": 30.0}
    found = [{**shared, **dict(zip(names, run, strict=True))} for run in runs]
    return pandas.DataFrame(found).reindex(columns=script.COLUMNS)


def test_the_stored_runs_are_those_of_the_grids(script):
    stored = pandas.read_csv(STORED)
    names = script.COLUMNS[:9]
    wanted = pandas.DataFrame(
        [
            {name: getattr(c.experiment, name) for name in names}
            for c in script.configurations(
                script.grids([*script.IMAGES, *script.SERIES], range(3), "cpu")
            )
        ]
    )
    key = [stored[names].astype(object).where(stored[names].notna(), None)]
    key.append(wanted.astype(object).where(wanted.notna(), None))
    assert sorted(map(str, key[0].to_dict("records"))) == sorted(
        map(str, key[1].to_dict("records"))
    )
    assert stored["error"].isna().all() and list(stored.columns) == script.COLUMNS
    images = stored[stored["target"].isin(script.IMAGES)]
    hits = images["test_accuracy"] * script.SAMPLES["n_test"]
    assert (hits - hits.round()).abs().max() < 1e-6
    assert set(images["kept"]) <= set(range(0, 101, 20))


def test_the_page_is_what_the_stored_runs_say(script, monkeypatch, capsys):
    pytest.importorskip("aeon")
    monkeypatch.setattr(script.mrviz.study, "run", lambda *args: pytest.fail("a run was started"))
    monkeypatch.setattr(sys, "argv", ["reprogramming.py", "--report", str(STORED)])
    script.main()
    assert capsys.readouterr().out.rstrip() == PAGE.read_text(encoding="utf-8").rstrip()


def test_cells_are_means_over_seeds(script):
    found = rows(
        script,
        ("border", "frequency", 0, 0.5, 0.40),
        ("border", "frequency", 1, 0.5, 0.60),
        ("linear", "linear_probe", 0, 0.9, 0.75),
        ("linear", "linear_probe", 1, 0.9, 0.75),
    )
    lines = script.table(found)
    assert lines[0] == (
        "| source | program | frequency (greedy) | linear probe (trainable) | CPU minutes |"
    )
    assert lines[2] == "| cnn, trained on mnist-5k | border | 50.0 ± 14.1 |  | 1.0 |"
    assert lines[3] == "| cnn, trained on mnist-5k | linear |  | 75.0 | 1.0 |"
    assert lines[-1].startswith("| none: chance |  | 10.0 |")


def test_validation_accuracy_chooses_and_never_test_accuracy(script):
    found = rows(
        script,
        ("border", "frequency", 0, 0.5, 0.99),
        ("linear", "frequency", 0, 0.8, 0.30),
        ("linear", "frequency", 1, 0.6, 0.50),
    )
    (chosen,) = script.chosen(found)[2:]
    assert chosen.endswith("| linear | frequency (greedy) | 70.0 ± 14.1 | 40.0 ± 14.1 |")


def test_failed_runs_are_said_to_have_failed(script):
    found = rows(script, ("border", "frequency", 0, None, None), ("linear", "random", 0, 0.1, 0.2))
    found["error"] = ["InputError: no frame", None]
    page = script.report(found, "made by hand")
    assert "| border | failed |" in page and "1 of 2 runs failed" in page


@pytest.mark.parametrize("arguments", [[], ["--store", "a", "--report", "b"]])
def test_it_either_runs_or_reports(script, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reprogramming.py", *arguments])
    with pytest.raises(SystemExit):
        script.main()
    assert "pass --store FILE to run, or --report FILE" in capsys.readouterr().err
