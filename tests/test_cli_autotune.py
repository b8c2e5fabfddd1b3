"""``mrviz autotune``: the table, JSON, the saved model, errors with advice."""

import importlib.util
import json

import pytest

import mrviz
from mrviz import cli

pytest.importorskip("optuna")
pytest.importorskip("sklearn")
SMALL = [
    *("autotune", "--source", "dnn", "--depth", "2", "--width", "16", "--input-size", "12"),
    *("--target", "digits", "--n", "50", "--programs", "linear", "scale", "--steps", "10"),
    *("--finalists", "1", "--budget", "25"),
]


def test_the_table_and_the_saved_model(tmp_path, capsys):
    folder = tmp_path / "best"
    assert cli.main([*SMALL, "--save", str(folder)]) == 0
    found = capsys.readouterr()
    assert found.out.startswith("Chosen: dnn") and "scale" in found.out
    assert "written" in found.err
    model = mrviz.load(folder, progress=False)
    target = mrviz.load_target("digits", n_train=50)
    right = (model.predict(target.x_test).argmax(1) == target.y_test).double().mean()
    assert float(right) == model.card["metrics"]["test_accuracy"]


def test_json_is_the_result(capsys):
    assert cli.main([*SMALL, "--json", "--optimizer", "gd", "--audit", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 25 and found["optimizer"] == "gd" and found["regret"] is not None


def test_errors_are_advice(capsys):
    assert cli.main([*SMALL, "--budget", "9"]) == 2
    assert "pass budget=10 or more" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("aeon"), reason="aeon is not installed")
def test_a_forecast_is_compared_with_its_source_and_the_naive_rule(capsys):
    small = ["autotune", "--source", "conv-forecaster", "--input-size", "24", "--width", "4"]
    small += ["--programs", "lag_affine", "--capacities", "1", "--steps", "5", "--budget", "5"]
    assert cli.main([*small, "--target", "airline"]) == 0
    text = capsys.readouterr().out
    assert "Forecasts of 18 test windows of airline" in text
    assert cli.main([*small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = {score["name"]: score["mse"] for score in found["forecasts"]["scores"]}
    assert list(scores) == ["reprogrammed", "source", "seasonal naive"]
    assert scores["reprogrammed"] == pytest.approx(2 * found["test_loss"] / 12, rel=1e-5)
    assert found["loss"] == "squared" and found["test_accuracy"] is None
    assert all(f"{name}: MSE {mse:.4g}" in text for name, mse in scores.items())
