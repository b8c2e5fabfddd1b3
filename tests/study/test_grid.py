"""Grids: which runs they stand for, their keys, and what is refused."""

import json

import numpy as np
import pytest

import mrviz
import mrviz.study
from mrviz.study.grid import Configuration, Settings, configurations

GRID = {"source": "dnn", "target": "digits", "depth": [1, 2], "seed": range(3)}


def test_every_combination_once_in_order():
    found = configurations(GRID)
    pairs = [(c.experiment.depth, c.experiment.seed) for c in found]
    assert pairs == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert len({c.key for c in found}) == 6
    joined = configurations([GRID, {**GRID, "depth": [2, 3]}])
    assert [c.key for c in joined[:6]] == [c.key for c in found] and len(joined) == 9


def test_keys_depend_on_values_and_not_on_how_they_are_given():
    (plain,) = configurations({"source": "dnn", "seed": 1, "lr": None})
    (other,) = configurations({"lr": [None], "seed": np.arange(1, 2), "source": ["dnn"]})
    assert plain == other and plain.key == other.key
    assert Configuration.from_dict(json.loads(plain.text)) == plain
    (changed,) = configurations({"source": "dnn", "seed": 1, "steps": 7})
    assert changed.key != plain.key and changed.settings == Settings(steps=7)


@pytest.mark.parametrize(
    ("grid", "match"),
    [
        ({"sauce": "dnn"}, "no choice sauce"),
        ({"source": ["dnn", "denn"]}, "source must be one of"),
        ({"source": [mrviz.SourceModel]}, "names or numbers"),
        ({"program": [mrviz.programs.Overlay((1, 4, 4), (1, 2, 2))]}, "rank_programs"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"loss": "hinge"}, "loss"),
        ({"lr": [0.1, -1.0]}, "lr"),
        ({"steps": 0}, "steps"),
        ({"n_test": 0}, "n_test"),
        ({"n_val": 0}, "n_val"),
        ({"split": "random"}, "split"),
        ({"keep": "best", "n_val": 10}, "keep"),
        ({"keep": "val_loss"}, "pass n_val"),
        ({"record_every": 5}, "record_every"),
        ({"keep": "last", "record_every": 5}, "record_every"),
        ({"keep": "val_loss", "n_val": 10, "record_every": 0}, "record_every"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 8, "optimizer": "gd"}, "batch_size does not apply"),
        ({"momentum": 0.5}, "optimizer='momentum' only"),
        ({"momentum": 1.5, "optimizer": "momentum"}, "below 1"),
        ({"source_kernel": "neural"}, "source_kernel"),
        ({"seed": []}, "empty"),
        ([], "empty"),
        (["dnn"], "a mapping from choices"),
    ],
)
def test_mistakes_come_before_anything_runs(grid, match, tmp_path):
    with pytest.raises(mrviz.InputError, match=match):
        mrviz.study.run(grid, tmp_path / "study.sqlite")
    assert not list(tmp_path.iterdir())


def test_options_of_programs_and_mappings_go_by_their_names():
    grid = {"program": "linear", "bias": [True, False], "mapping": "bayesian", "lam": [0, 1]}
    found = configurations(grid)
    assert [c.experiment.options for c in found] == [
        {"lam": 0.0},
        {},
        {"bias": False, "lam": 0.0},
        {"bias": False},
    ]
    plain = configurations({"program": "linear", "mapping": "bayesian"})[0]
    assert plain.key == found[1].key and "options" not in plain.to_dict()
    for made in found:
        assert type(made).from_dict(made.to_dict()) == made
    assert found[2].to_dict()["bias"] is False
    with pytest.raises(
        mrviz.InputError, match=r"no choice bias; .*'border' has the options activation"
    ):
        configurations({"program": ["linear", "border"], "bias": False})
