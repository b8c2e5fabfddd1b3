"""The prediction study: what its report computes, which tables it takes, what its picture shows."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
STORED = ROOT / "benchmarks" / "results" / "prediction.csv"
INTERVAL = re.compile(r"\(-?[\d.]+ to -?[\d.]+\)")


@pytest.fixture(scope="module")
def modules():
    """prediction, _prediction and _prediction_figure, found as the script finds them."""
    names = ("prediction", "_prediction", "_prediction_figure")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        found = [importlib.import_module(name) for name in names]
        patch.setattr(found[1], "RESAMPLES", 20)
        yield found
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def script(modules):
    return modules[0]


@pytest.fixture
def numbers(modules):
    return modules[1]


@pytest.fixture
def drawing(modules):
    return modules[2]


def row(numbers, source, program, predicted, gd, **other):
    target, family, weights, seed = source
    values = {"target": target, "family": family, "weights": weights, "seed": seed}
    values |= {"program": program, "predicted": predicted, "start": 0.1, "ridge": 1 - gd}
    values |= {"leave_one_out": gd, "gd": gd, "sgd": gd, "adam": gd + 0.1, "drift": gd}
    values |= {"alignment": 0.5, "parameters": 10, "lr": 0.1, "source_accuracy": "", "skipped": ""}
    values |= {"diverged": ""}
    return {name: str(value) for name, value in (values | other).items()}


@pytest.fixture
def small(numbers):
    """Two sources, three programs. Inside source A the ranks are 1 2 3 / 1 3 2, inside B equal."""
    a, b = ("digits", "dnn", "trained", 0), ("digits", "dnn", "random", 0)
    return [
        row(numbers, a, "border", 0.10, 0.10),
        row(numbers, a, "linear", 0.20, 0.40),
        row(numbers, a, "scale", 0.30, 0.20),
        row(numbers, b, "border", 0.50, 0.50),
        row(numbers, b, "linear", 0.60, 0.70),
        row(numbers, b, "scale", 0.55, 0.60),
    ]


def test_correlations_by_hand_and_against_scipy(numbers):
    x, y = np.arange(1.0, 6.0), np.array([2.0, 1.0, 4.0, 3.0, 5.0])
    assert numbers.correlation(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))
    ties = numbers.correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    assert ties == pytest.approx(3**0.5 / 2)
    assert np.isnan(numbers.correlation(x, np.ones(5)))
    assert np.isnan(numbers.correlation(x[:2], y[:2]))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 60) / 10, rng.integers(0, 6, 60) / 10
    labels = rng.integers(0, 4, 60)
    expected = [spearmanr(x[labels == k], y[labels == k]).statistic for k in range(4)]
    assert numbers.correlations(x, y, labels) == pytest.approx(expected)


def test_correlations_of_groups_without_any_are_left_out(numbers):
    x = np.array([1.0, 2, 3, 1, 2, 1, 1, 1])
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    found = numbers.correlations(x, x, labels)
    assert found[0] == pytest.approx(1) and np.isnan(found[1:]).all()
    assert numbers.mean(found) == pytest.approx(1)
    assert np.isnan(numbers.mean(found[1:]))


def test_intervals_resample_sources_with_all_their_runs(numbers, small):
    # Both sources once or one of them twice: 0.94, 0.5 and 1 are all there is for pooled runs.
    pooled = [
        numbers.correlation(numbers.column(r, "predicted"), numbers.column(r, "gd"))
        for r in (small, small[:3], small[3:])
    ]
    assert pooled == pytest.approx([1 - 6 * 2 / (6 * 35), 0.5, 1.0])
    assert numbers.interval(small, "predicted", "gd") == pytest.approx((0.5, 1.0))
    assert numbers.interval(small, "predicted", "gd", numbers.SOURCE) == pytest.approx((0.5, 1.0))
    assert np.isnan(numbers.interval(small, "start", "gd")).all()


def test_chance_is_the_interval_of_two_shares(numbers):
    # √(0.5·0.5·2/500) = 0.0316: 1.96 of it are 0.062, less near 0.
    x = np.array([0.5, 0.5, 0.5, 0.02, 0.02, 0.1])
    y = np.array([0.5, 0.56, 0.57, 0.034, 0.05, 0.1])
    assert list(numbers.chance(x, y, 500)) == [True, True, False, True, False, True]
    assert list(numbers.chance(y, x, 500)) == list(numbers.chance(x, y, 500))


def test_redrawn_samples_agree_where_models_differ_and_not_where_they_are_equal(numbers):
    assert numbers.redrawn(np.linspace(0.1, 0.9, 9), 500) > 0.99
    assert abs(numbers.redrawn(np.full(9, 0.5), 500)) < 0.1


def test_shares_between_programs_and_their_means(numbers, small):
    # Ranks of gd: A 1 3 2, B 4 6 5. Means by program 2.5 4.5 3.5, all 3.5.
    assert numbers.between(small, "gd", ("program",)) == pytest.approx(2 * (1 + 1 + 0) / 17.5)
    assert numbers.between(small, "gd", numbers.SOURCE) == pytest.approx(6 * 1.5**2 / 17.5)
    assert numbers.program_mean(small) == pytest.approx([0.5, 0.7, 0.6, 0.1, 0.4, 0.2])


def test_the_report_of_a_small_table(numbers, small, capsys):
    skipped = row(numbers, ("digits", "cnn", "random", 0), "border", "", 0.0, skipped="too large")
    summary = numbers.report([*small, skipped], 500)
    assert summary["runs"] == 6
    assert summary["predicted/gd"][0] == pytest.approx(1 - 12 / 210)
    assert summary["ridge/gd"][0] == pytest.approx(-1)
    assert summary["leave_one_out/adam"][0] == pytest.approx(1)
    assert np.isnan(summary["start/gd"][0])
    inside = summary["predicted/gd within a source, target and seed"]
    assert inside[0] == pytest.approx((0.5 + 1) / 2)
    assert summary["by_chance"] == pytest.approx(3 / 6)
    assert summary["mean_difference"] == pytest.approx((0 + 0.2 + 0.1 + 0 + 0.1 + 0.05) / 6)
    printed = capsys.readouterr().out
    assert "6 runs, 1 left out, 0 diverged; 2 combinations" in printed
    assert re.search(r"^predicted +0\.94 \(0\.50 to 1\.00\)", printed, re.MULTILINE)
    assert "3 of 6 runs (2 predicted too low, 1 too high)" in printed
    misses = printed.partition("largest misses")[2].splitlines()
    assert misses[2].split()[:6] == ["digits", "dnn", "trained", "0", "linear", "0.200"]
    assert re.search(r"^program scale +2 +nan", printed, re.MULTILINE)


def test_the_stored_study_is_complete_and_of_these_settings(script, numbers):
    rows = script.stored(STORED, script.SETTINGS)
    assert len(rows) == 175
    assert {r["settings"] for r in rows} == {script.mark_of(script.SETTINGS)}
    assert tuple(rows[0]) == script.COLUMNS
    for name in (*numbers.PREDICTORS[:3], *numbers.MEASURED):
        hits = numbers.column(rows, name) * script.SETTINGS["n_test"]
        assert np.abs(hits - hits.round()).max() < 1e-6, f"{name} is no share of n_test samples"
    assert numbers.column(rows, "stable_step") * script.SETTINGS["lr_fraction"] == pytest.approx(
        numbers.column(rows, "lr")
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("2b83f12b7509", "0123456789ab", 1), "other settings"),
        (lambda text: "".join(text.splitlines(True)[:-1]), "174 of the 175 runs"),
        (lambda text: text + text.splitlines(True)[-1], "in 176 rows"),
        (lambda text: text.splitlines(True)[0], "holds no runs"),
    ],
)
def test_other_tables_are_refused(script, tmp_path, change, says):
    path = tmp_path / "changed.csv"
    path.write_text(change(STORED.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(SystemExit, match=says):
        script.stored(path, script.SETTINGS)


def test_a_run_refuses_rows_of_other_settings_before_it_starts(script, tmp_path, monkeypatch):
    path = tmp_path / "prediction.csv"
    path.write_text(STORED.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(script, "load", lambda *args: pytest.fail("a run was started"))
    with pytest.raises(SystemExit, match="other settings"):
        script.study(script.SETTINGS | {"steps": 101}, path)
    assert len(script.study(script.SETTINGS, path)) == 175


def same(line, other):
    """Whether two printed lines agree, up to the last digit of what is drawn at random."""
    words, others = (INTERVAL.sub("", text).split() for text in (line, other))
    if len(words) != len(others):
        return False
    for a, b in zip(words, others, strict=True):
        if a != b:
            try:
                if abs(float(a) - float(b)) > 0.0051:
                    return False
            except ValueError:
                return False
    return True


def test_report_prints_what_the_pages_show_and_runs_nothing(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "study", lambda *args: pytest.fail("the study was run"))
    monkeypatch.setattr(sys, "argv", ["prediction.py", "--report", str(STORED)])
    script.main()
    printed = capsys.readouterr().out.splitlines()
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    pages = [
        (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8"),
        results.partition("## `python benchmarks/prediction.py`")[2].partition("\n## ")[0],
    ]
    for page in pages:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
        assert lines
        for line in lines:
            assert any(same(line, other) for other in printed), f"not in the report: {line}"


def test_report_and_csv_exclude_each_other(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prediction.py", "--report", str(STORED), "--csv", "x.csv"])
    with pytest.raises(SystemExit):
        script.main()
    assert "choose one" in capsys.readouterr().err


def test_the_picture_shows_every_run_in_every_panel(script, numbers, drawing):
    pytest.importorskip("plotly")
    rows = script.stored(STORED, script.SETTINGS)
    picture = drawing.figure(rows)
    assert picture.layout.paper_bgcolor == picture.layout.plot_bgcolor == "white"
    for axis, name in (("y", "gd"), ("y2", "sgd"), ("y3", "adam")):
        points = [t for t in picture.data if (t.yaxis or "y") == axis and t.text is not None]
        drawn = sorted((x, y) for t in points for x, y in zip(t.x, t.y, strict=True))
        wanted = zip(numbers.column(rows, "predicted"), numbers.column(rows, name), strict=True)
        assert drawn == sorted(wanted)
        assert len({t.marker.color for t in points}) == len(points) == 7
        symbols = {
            (label.split()[2], symbol)
            for t in points
            for label, symbol in zip(t.text, t.marker.symbol, strict=True)
        }
        assert symbols == set(drawing.SYMBOLS.items())
        (diagonal,) = [t for t in picture.data if (t.yaxis or "y") == axis and t.mode == "lines"]
        assert diagonal.x == diagonal.y == (0, 1)
    titles = [a.text for a in picture.layout.annotations]
    assert [t.partition("</b>")[0] for t in titles] == ["<b>Gradient descent", "<b>SGD", "<b>Adam"]
    assert [t.partition("ρ = ")[2][:4] for t in titles] == ["0.99", "0.98", "0.94"]
    shown = {t.name for t in picture.data if t.showlegend is not False}
    assert {"linear border", "scale", "trained source", "pretrained source", "equal"} <= shown


def test_pictures_that_cannot_be_made_are_refused_early(drawing, monkeypatch):
    with pytest.raises(SystemExit, match=r"\.png, \.svg, \.html"):
        drawing.check_picture(Path("scatter.jpg"))
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: name != "kaleido" or None)
    drawing.check_picture(Path("scatter.html"))
    with pytest.raises(SystemExit, match=r"needs kaleido: pip install .* or name a \.html"):
        drawing.check_picture(Path("scatter.png"))
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="needs plotly"):
        drawing.check_picture(Path("scatter.html"))


def test_pictures_are_saved_in_the_format_of_the_name(drawing, small, tmp_path):
    pytest.importorskip("plotly")
    path = tmp_path / "scatter.html"
    picture = drawing.figure(small)
    drawing.save(picture, path)
    assert "Gradient descent" in path.read_text(encoding="utf-8")

    class WithoutBrowser:
        def to_image(self, kind, scale):
            raise RuntimeError(f"no Chrome for {kind}")

    with pytest.raises(SystemExit, match="no Chrome for svg"):
        drawing.save(WithoutBrowser(), tmp_path / "scatter.svg")
