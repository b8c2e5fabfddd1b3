"""An experiment: its code reproduces it, its changes drop what no longer applies."""

import importlib.util
import json
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import DeviceError, InputError
from mrviz.experiment import HELP, Experiment
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.programs.rebuild import describe_program
from mrviz.targets import TARGETS, forecast_target
from mrviz.workbench import Workbench

needs_aeon = pytest.mark.skipif(
    not importlib.util.find_spec("aeon"), reason="aeon is not installed"
)
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
        {"program": "linear", "bias": False},
        {"program": "low_rank", "max_rank": 6, "mapping": "linear_probe", "start": "uniform"},
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
        {"options": 3},
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
    assert Experiment().changed(source="fcn").program == "linear", "from one default to the other"
    assert Experiment(program="overlay").changed(source="fcn").program == "overlay"
    assert series.changed(source="resnet1d", target="ucr:ArrowHead").program == "linear"
    assert series.changed(target="digits").source == "efficientnet-lite0"
    assert Experiment(n=200).changed(target="ucr:GunPoint").n == 134
    back = series.changed(source="cnn", program="overlay")
    assert (back.target, back.program) == ("mnist-5k", "overlay")


def four(experiment):
    return experiment.source, experiment.target, experiment.program, experiment.mapping


def test_a_forecaster_brings_a_forecast_and_the_other_way_round():
    for choices in ({"source": "fracast"}, {"target": "airline"}):
        there = Experiment().changed(**choices)
        assert four(there) == ("fracast", "airline", "linear", "identity")
        assert there.n == TARGETS["airline"].most_train == 51 and there.class_names == ()
        assert there.output_names == tuple(f"t+{k}" for k in range(1, 13))
    assert four(there.changed(source="efficientnet-lite0")) == four(Experiment())
    assert four(there.changed(target="mnist-5k")) == four(Experiment())
    assert four(there.changed(source="fcn")) == ("fcn", "ucr:GunPoint", "linear", "frequency")
    solar = there.changed(source="conv-forecaster", program="lag_affine").changed(target="solar")
    assert four(solar) == ("conv-forecaster", "solar", "lag_affine", "identity")


def test_forecasters_name_classes_but_classifiers_forecast_only_when_told_to():
    classes = Experiment().changed(source="fcn").changed(source="fracast")
    assert four(classes) == ("fracast", "ucr:GunPoint", "linear", "frequency")
    assert classes.changed(target="airline").source == "fracast"
    assert Experiment().changed(source="fcn").changed(target="solar").source == "fracast"
    told = Experiment(n=8).changed(source="fcn", target="airline", mapping="linear_probe")
    with pytest.raises(InputError, match=r"'linear_probe' needs class labels.*start='identity'"):
        told.build(told.load_source(progress=False), airline())
    told = told.changed(start="uniform")
    assert told.build(told.load_source(progress=False), airline()).outputs == 12
    with pytest.raises(InputError, match="10 outputs, too few for 12"):
        told = told.changed(mapping="identity")
        told.build(told.load_source(progress=False), airline())


def airline():
    """A target like airline that needs no package."""
    months = torch.arange(144.0)
    return forecast_target(months + 9 * (months % 12), context=24, horizon=12, season=12)


def test_a_mapping_stays_where_real_values_have_what_it_needs():
    probe = Experiment().changed(target="airline", mapping="linear_probe", start="uniform")
    assert probe.changed(target="solar").mapping == "linear_probe"
    assert probe.changed(target="solar").options == {"start": "uniform"}
    named = Experiment().changed(source="fracast", target="ucr:GunPoint", mapping="linear_probe")
    assert named.changed(target="airline").mapping == "identity"
    assert named.changed(target="airline", mapping="random").mapping == "random"


def test_objects_of_ones_own_fit_by_kind_and_real_values_have_no_frequencies():
    target = airline()
    own = Experiment().changed(target=target)
    assert (own.source, own.program, own.mapping, own.n) == ("fracast", "linear", "identity", 51)
    assert Experiment().changed(source="fcn").changed(target=target).source == "fcn"
    x = torch.rand(9, 1, 6, 6)
    values = mrviz.Target(x, torch.rand(9, 2), x, torch.rand(9, 2))
    regression = Experiment().changed(target=values)
    assert (regression.source, regression.mapping) == ("efficientnet-lite0", "identity")
    assert regression.changed(target="digits").mapping == "frequency"


@needs_aeon
@pytest.mark.parametrize(
    "choices",
    [{}, {"program": "lag_affine", "capacity": 5, "reduce": "trace"}, {"seed": 2, "n": 7}],
    ids=str,
)
def test_the_code_reproduces_a_forecast(choices):
    forecast = {"source": "conv-forecaster", "input_size": 24, "width": 4, "n": 12}
    agree(Experiment().changed(**{**forecast, "target": "airline", **choices}))


@needs_aeon
def test_more_windows_than_there_are():
    forecast = Experiment().changed(source="conv-forecaster", n=52)
    with pytest.raises(InputError, match=r"n_train=52, .* has room for 51 windows of 24"):
        forecast.load_target()
    assert len(replace(forecast, n=51).load_target().x_train) == 51


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


def test_options_are_those_of_program_and_mapping():
    both = Experiment(program="linear", mapping="bayesian", options={"lam": 2, "bias": False})
    assert both.options == {"bias": False, "lam": 2.0} and isinstance(both.options["lam"], float)
    assert both.option_values() == {"bias": False, "lam": 2.0}
    assert hash(both) == hash(replace(both, options={"bias": False, "lam": 2.0}))
    assert Experiment(**json.loads(json.dumps(both.to_dict()))) == both
    assert "bias=False, lam=2.0" in both.label() and "bias=False, lam=2.0)" in both.code()
    plain = Experiment(program="linear", options={"bias": True})
    assert plain == Experiment(program="linear") and "bias" not in plain.code() + plain.label()
    with pytest.raises(TypeError):
        both.options["lam"] = 3


def test_changes_drop_the_options_of_what_changed():
    both = Experiment(capacity=2).changed(mapping="bayesian", lam=2, activation="identity")
    assert both.options == {"lam": 2, "activation": "identity"} and both.capacity is None
    assert both.changed(program="linear", bias=False).options == {"lam": 2, "bias": False}
    assert both.changed(program="linear_border").options == {"lam": 2}
    assert both.changed(mapping="identity").options == {"activation": "identity"}
    assert both.changed(seed=4, lam=None).options == {"activation": "identity"}
    assert both.changed(options={"lam": 3}).options == {"lam": 3}
    placed = replace(both, capacity=2)
    assert placed.changed(lam=0.5).capacity == 2, "a mapping does not change what it means"
    assert placed.changed(activation="sigmoid").capacity is None
    assert placed.changed(activation="sigmoid", capacity=1).capacity == 1


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"replicas": 2}, r"no choice replicas .*'border' has the options activation"),
        ({"activation": "tanh"}, "activation must be one of 'sigmoid', 'identity', got 'tanh'"),
        ({"program": "linear", "bias": 1}, "bias must be True or False, got 1"),
        ({"mapping": "bayesian", "lam": "big"}, "lam must be a number, got 'big'"),
        ({"mapping": "logit_average", "m": 1.5}, "m must be a whole number, got 1.5"),
        ({"program": "sample_masks", "layers": True}, "layers must be one of 5, 6, got True"),
        ({"program": "low_rank", "rank": 3}, "its rank is the choice capacity"),
        ({"options": {"image_size": 4}}, "no option image_size"),
    ],
    ids=str,
)
def test_wrong_options_are_named_with_those_there_are(choices, message):
    with pytest.raises(InputError, match=message):
        Experiment().changed(**choices)


@pytest.mark.parametrize(
    ("owner", "name", "option", "value"),
    [
        (owner, name, option.name, value)
        for owner, known in (("program", PROGRAMS), ("mapping", MAPPINGS))
        for name, spec in known.items()
        for option in spec.declared.values()
        if option.name != "image_size"
        for value in [
            next(
                value
                for value in [
                    *(option.choices or (2,) if option.kind is not bool else (not option.default,)),
                    0.5,
                ]
                if value not in (option.default, None)
                and (option.kind is not float or value == 0.5)
            )
        ]
    ],
    ids=str,
)
def test_every_option_reaches_what_is_built(owner, name, option, value):
    series = {"source": "fcn", "depth": 2, "width": 4, "input_size": 420, "n": 8}
    series |= {"target": "ucr:GunPoint", "reduce": "trace"}
    fits = owner == "mapping" or PROGRAMS[name].fits((1, 8, 8))
    fits = fits and option != "m"  # several source outputs for each class
    base = SMALL if fits else replace(Experiment().changed(source="fcn"), **series)
    chosen = base.changed(**{owner: name, option: value})
    result = Workbench().run(chosen, progress=False)
    assert result.experiment.options == {option: value} and f"{option}={value!r}" in chosen.code()
    model = Workbench().model(chosen)
    other = Workbench().model(base.changed(**{owner: name}))
    assert describe_program(model.program) != describe_program(other.program) or not torch.equal(
        model.weights, other.weights
    )
