"""``mrviz autotune``: the table, JSON, the saved model, errors with advice."""

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
