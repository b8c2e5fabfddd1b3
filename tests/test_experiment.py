"""An experiment: its code reproduces it, its changes drop what no longer applies."""

import json
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import DeviceError, InputError
from mrviz.experiment import HELP, Experiment
from mrviz.workbench import Workbench

SMALL = Experiment(source="dnn", depth=2, width=16, input_size=12, target="digits", n=20)


def executed(experiment, **names):
    """Eigenvalues and conditions that the printed lines come to."""
    printed = []
    names["print"] = printed.append
    exec(compile(experiment.code(), "code", "exec"), names)
    spec, conditions = printed
    return spec, conditions


def agree(experiment, **names):
    result = Workbench().run(experiment, progress=False)
    for shown in (experiment, result.experiment):
        spec, conditions = executed(shown, **names)
        scale = result.spectrum.largest
        assert spec.eigenvalues.shape == result.spectrum.eigenvalues.shape
        assert float((spec.eigenvalues - result.spectrum.eigenvalues).abs().max()) < 1e-9 * scale
        assert spec.epsilon == result.spectrum.epsilon
        assert [(c.id, c.status) for c in conditions] == [
            (c.id, c.status) for c in result.conditions
        ]
        for mine, other in zip(conditions, result.conditions, strict=True):
            assert (mine.value is None) is (other.value is None)
            assert mine.value is None or mine.value == pytest.approx(other.value, rel=1e-6)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"program": "linear", "dtype": "float64", "reduce": "trace"},
        {"reduce": 3, "capacity": 1, "device": "cpu"},
        {"program": "linear_border", "image_size": 5, "reduce": "sum", "mapping": "identity"},
        {"target": "mnist-5k", "image_size": 8, "seed": 3},
        {"program": "overlay", "trained_on": "digits", "width": 8},
        {"source": "cnn", "depth": 1, "width": 4},
        {"program": "low_rank", "capacity": 3, "image_size": 10, "dtype": "float64", "seed": 2},
        {"program": "convolution", "capacity": 2},
        {"program": "scale"},
        {"mapping": "bayesian", "seed": 2},
        {"mapping": "random", "seed": 5, "dtype": "float64"},
        {"mapping": "probability_average", "program": "linear", "reduce": "trace"},
        {"mapping": "linear_probe", "program": "overlay"},
        {"program": "scaled_border", "capacity": 1},
        {"program": "random_patch", "capacity": 4, "seed": 3},
        {"program": "frequency", "capacity": 2},
        {"program": "sample_masks", "seed": 1},
    ],
    ids=str,
)
def test_the_code_reproduces_the_run(choices):
    agree(SMALL.changed(**choices) if "source" not in choices else replace(SMALL, **choices))


def own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 4))
    x, y = torch.rand(24, 1, 6, 6), torch.arange(24) % 3
    source = mrviz.SourceModel(net, (1, 12, 12), name="my_source")
    target = mrviz.Target(x[:12], y[:12], x[12:], y[12:], name="my_target")
    return {
        "source": source,
        "target": target,
        "program": mrviz.programs.Border((1, 12, 12), (1, 6, 6)),
    }


def test_the_code_names_objects_of_ones_own_and_runs_with_them():
    objects = own()
    experiment = Experiment(**objects, n=12, capacity=2)
    for name in ("my_source", "my_target", "Border"):
        assert name in experiment.code()
    agree(experiment, **objects)


@pytest.mark.parametrize(
    ("program", "keyword"),
    [
        ("border", "width=2"),
        ("linear_border", "width=2"),
        ("low_rank", "rank=2"),
        ("convolution", "size=2"),
    ],
)
def test_the_capacity_is_the_programs_own_option(program, keyword):
    experiment = replace(SMALL, program=program, capacity=2)
    assert f", {keyword})" in experiment.code()
    model = experiment.build(experiment.load_source(progress=False), experiment.load_target())
    assert model.capacity == 2


@pytest.mark.parametrize("program", ["linear", "overlay", "scale"])
def test_a_capacity_for_a_program_without_one(program):
    experiment = replace(SMALL, program=program, capacity=2)
    with pytest.raises(InputError, match="no option capacity"):
        experiment.build(experiment.load_source(progress=False), experiment.load_target())
    with pytest.raises(InputError, match="has no capacity to choose"):
        Workbench().run(experiment, progress=False)


def test_a_program_of_ones_own_is_built_at_the_capacity_chosen():
    objects = own()
    experiment = Experiment(**objects, n=12, capacity=2)
    model = experiment.build(objects["source"], objects["target"])
    assert (model.capacity, objects["program"].capacity) == (2, 3)


def test_changes_drop_what_no_longer_applies():
    full = replace(SMALL, capacity=2, image_size=8, trained_on="digits")
    assert full.changed(seed=3) == replace(full, seed=3)
    assert full.changed(source="vgg") == Experiment(
        source="vgg", target="digits", n=20, image_size=8
    )
    assert full.changed(source="vgg", depth=1, capacity=1).capacity == 1
    linear = full.changed(program="linear")
    assert (linear.image_size, linear.capacity, linear.depth) == (None, None, 2)
    assert full.changed(image_size=6).capacity is None
    assert full.changed(target="mnist-5k").capacity is None
    with pytest.raises(InputError, match=r"sauce.*source"):
        full.changed(sauce=1)


def test_a_target_of_ones_own_lowers_n():
    target = own()["target"]
    assert Experiment().changed(target=target).n == 12
    assert Experiment(n=5).changed(target=target).n == 5
    assert Experiment().changed(target=target, n=40).n == 40
    with pytest.raises(InputError, match="only 12 training samples"):
        Experiment().changed(target=target, n=40).load_target()


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "dnm"},
        {"target": None},
        {"program": "frame"},
        {"mapping": torch.eye(3)},
        {"dtype": "half"},
        {"n": 0},
        {"n": 2.5},
        {"n": True},
        {"seed": -1},
        {"seed": 1.5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_values_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Experiment(**wrong)


def test_options_of_named_sources_do_not_apply_to_ones_own():
    with pytest.raises(InputError, match="depth"):
        Experiment(source=own()["source"], depth=3).load_source()
    with pytest.raises(DeviceError):
        replace(SMALL, device="cuda:99").load_source(progress=False)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({}, ["DNN depth 2 (random)", "border"]),
        ({"trained_on": "digits", "capacity": 2}, ["DNN depth 2 ·", "border 2"]),
        ({"program": "linear_border", "reduce": "trace"}, ["linear + border", "trace"]),
        ({"source": "efficientnet-lite0", "weights": "random"}, ["EfficientNet-Lite0 (random)"]),
        ({"program": "low_rank", "capacity": 7}, ["low-rank linear 7"]),
        ({"program": "scale"}, ["image scale"]),
    ],
)
def test_labels(choices, words):
    label = SMALL.changed(**choices).label()
    assert all(word in label for word in words) and "None" not in label


def test_labels_keep_the_names_people_give():
    assert Experiment(**own()).label() == "my_source · own program"


def test_plain_values():
    found = json.loads(json.dumps(Experiment(**own(), reduce=2).to_dict()))
    assert (found["source"], found["target"], found["program"]) == (
        "my_source",
        "my_target",
        "Border",
    )
    assert Experiment(**SMALL.to_dict()) == SMALL
    assert set(found) == {f.name for f in fields(Experiment)} == set(HELP)


def test_fewer_samples_than_classes_are_named_as_the_user_knows_them():
    with pytest.raises(
        mrviz.InputError, match="n must be at least 10, one sample for each class of digits, got 5"
    ):
        Experiment(target="digits", n=5).load_target()


def test_a_source_for_series_brings_what_fits_it():
    series = Experiment(program="scale").changed(source="fcn")
    assert (series.target, series.program) == ("ucr:GunPoint", "linear")
    assert Experiment().changed(source="fcn").program == "border", "which takes both"
    assert series.changed(source="resnet1d", target="ucr:ArrowHead").program == "linear"
    assert series.changed(target="digits").source == "efficientnet-lite0"
    assert Experiment(n=200).changed(target="ucr:GunPoint").n == 134
    back = series.changed(source="cnn", program="overlay")
    assert (back.target, back.program) == ("mnist-5k", "overlay")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"source": "fcn"}, "the source takes series, but the target holds images"),
        ({"target": "ucr:GunPoint"}, "the source takes images, but the target holds series"),
        (
            {"source": "fcn", "target": "ucr:GunPoint", "program": "scale"},
            "'scale' does not work on series",
        ),
    ],
)
def test_images_and_series_do_not_mix(choices, message):
    with pytest.raises(InputError, match=message):
        Experiment(**choices)
