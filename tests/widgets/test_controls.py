"""The controls: an experiment in, the same experiment out, and what is offered when."""

import threading
from dataclasses import fields, replace

import ipywidgets as w
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mrviz
from mrviz.experiment import Experiment
from mrviz.pairing import SHAPES
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.sources import SOURCES
from mrviz.sources.forecasters import FORECASTERS
from mrviz.targets import TARGETS
from mrviz.widgets.controls import Controls

ON_IMAGES = [name for name, spec in PROGRAMS.items() if spec.fits((1, 8, 8))]
SMALL = Experiment(source="dnn", depth=2, width=16, input_size=12, target="digits", n=20)


def ignore(_):
    pass


def values(control):
    return [value for _, value in control.options]


def hidden(control):
    return control.layout.display == "none"


@pytest.fixture
def changes():
    return []


@pytest.fixture
def controls(changes):
    controls = Controls(SMALL, changes.append)
    yield controls
    controls.close()


@pytest.fixture(scope="module")
def shared():
    """One set of controls for all examples: whatever they showed before must not matter."""
    controls = Controls(Experiment(), ignore)
    yield controls
    controls.close()


@pytest.fixture
def own_source():
    torch.manual_seed(0)
    return mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), (1, 12, 12), name="me")


@pytest.fixture
def own_target():
    x = torch.rand(30, 1, 6, 6)
    return mrviz.Target(x[:18], torch.arange(18) % 3, x[18:], torch.arange(12) % 3, name="mine")


def fitting_programs(kind):
    return sorted(name for name, spec in PROGRAMS.items() if spec.fits(SHAPES[kind]))


@st.composite
def experiments(draw):
    source = draw(st.sampled_from(sorted(SOURCES)))
    chosen = {"source": source, "input_size": draw(st.integers(32, 300))}
    if SOURCES[source].pretrained:
        chosen["weights"] = draw(st.sampled_from(["pretrained", "random"]))
    else:
        chosen["depth"] = draw(st.integers(1, 9))
        if (source, chosen["depth"]) != ("dnn", 1):
            chosen["width"] = draw(st.integers(1, 3000))
        if source in ("vgg", "resnet"):
            chosen["groups"] = draw(st.integers(1, 6))
        chosen["trained_on"] = draw(st.sampled_from(SOURCES[source].choices["trained_on"]))
    kind = SOURCES[source].kind
    targets = sorted(name for name, spec in TARGETS.items() if spec.kind == kind)
    program = draw(st.sampled_from(fitting_programs(kind)))
    if "image_size" in PROGRAMS[program].options:
        chosen["image_size"] = draw(st.none() | st.integers(1, 60))
    if PROGRAMS[program].capacity:
        chosen["capacity"] = draw(st.none() | st.integers(1, 90))
    mapping = draw(st.sampled_from(sorted(MAPPINGS)))
    known = [*PROGRAMS[program].declared.values(), *MAPPINGS[mapping].declared.values()]
    options = {
        o.name: draw(
            st.sampled_from(o.offered)
            if o.offered
            else st.booleans()
            if o.kind is bool
            else st.none()
        )
        for o in known
        if o.name != "image_size"
    }
    return Experiment(
        target=draw(st.sampled_from(targets)),
        n=draw(st.integers(1, 900)),
        program=program,
        mapping=mapping,
        options=options,
        reduce=draw(st.sampled_from(["full", "trace", "sum", 0, 7])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        seed=draw(st.integers(0, 2**31 - 1)),
        **chosen,
    )


@given(experiments())
def test_what_is_set_is_what_is_shown(shared, experiment):
    shared.set(experiment)
    assert shared.experiment == experiment


def test_defaults_are_filled_in_and_stay(controls):
    controls.set(Experiment())
    shown = controls.experiment
    assert (shown.input_size, shown.weights) == (64, "pretrained")
    assert replace(shown, input_size=None, weights=None) == Experiment()
    controls.set(shown)
    assert controls.experiment == shown


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_options_that_do_not_apply_are_hidden_and_none(controls, source):
    controls.widgets["source"].value = source
    shown = controls.experiment
    for option in ("depth", "groups", "width", "input_size"):
        applies = option in SOURCES[source].options
        assert hidden(controls.widgets[option]) is not applies
        assert (getattr(shown, option) is not None) is applies
    if SOURCES[source].pretrained:
        assert (shown.weights, shown.trained_on) == ("pretrained", None)
    else:
        assert (shown.weights, shown.trained_on) == (None, None)
        data = SOURCES[source].choices["trained_on"][1]
        controls.widgets["weights"].value = data
        assert controls.experiment.trained_on == data


def test_a_dnn_of_depth_one_has_no_width(controls):
    controls.widgets["depth"].value = 1
    assert hidden(controls.widgets["width"]) and controls.experiment.width is None
    controls.widgets["depth"].value = 2
    assert not hidden(controls.widgets["width"]) and controls.experiment.width == 16


@pytest.mark.parametrize("program", ON_IMAGES)
def test_image_size_belongs_to_programs_that_place_an_image(controls, program):
    controls.set(replace(SMALL, image_size=6))
    controls.widgets["program"].value = program
    places = program in ("border", "linear_border", "low_rank")
    assert hidden(controls.widgets["image_size"]) is not places
    assert controls.experiment.image_size == (6 if places else None)


def test_only_a_border_needs_room_around_the_image(controls):
    control = controls.widgets["image_size"]
    controls.widgets["input_size"].value = 8  # as large as the digits
    assert max(value or 8 for value in values(control)) < 8
    controls.widgets["program"].value = "low_rank"
    assert values(control)[0] == "" and max(value or 8 for value in values(control)) == 8
    control.value = ""
    assert controls.experiment.image_size is None
    controls.widgets["program"].value = "border"
    assert controls.experiment.image_size == 6


def test_programs_go_by_their_names_for_people(controls):
    labels = {value: label for label, value in controls.widgets["program"].options}
    assert labels["low_rank"] == "low-rank linear" and labels["linear_border"] == "linear + border"
    assert sorted(labels) == fitting_programs("image")


def test_programs_that_the_target_does_not_fit_are_not_offered(controls):
    x = torch.rand(30, 1, 24)
    target = mrviz.Target(x[:18], torch.arange(18) % 3, x[18:], torch.arange(12) % 3, name="waves")
    own = mrviz.programs.Linear((1, 12, 12), (1, 6, 6))
    controls.set(replace(SMALL, program=own))
    controls.widgets["program"].value = "border"
    controls.set(Experiment(source="fcn", target=target, n=18))
    offered = values(controls.widgets["program"])
    on_series = [name for name, spec in PROGRAMS.items() if spec.fits((1, 24))]
    assert offered == [*on_series, own] and "series_padding" in offered and "scale" not in offered
    controls.widgets["program"].value = "series_padding"
    controls.widgets["source"].value = "cnn"
    assert values(controls.widgets["program"]) == [*ON_IMAGES, own]


def test_a_program_added_later_is_offered():
    class Later(mrviz.programs.Overlay):
        key = "later"
        label = "added later"

    mrviz.programs.program(Later)
    try:
        controls = Controls(SMALL, ignore)
        assert ("added later", "later") in controls.widgets["program"].options
        controls.close()
    finally:
        del PROGRAMS["later"]


@pytest.mark.parametrize("source", ["fcn", "resnet1d", "conv-forecaster", "fracast"])
def test_a_source_for_series_comes_with_targets_and_programs_for_series(
    controls, changes, source, own_target
):
    controls.set(replace(SMALL, target=own_target, n=18, program="scale"))
    controls.widgets["source"].value = source
    assert changes == ["source"]
    assert TARGETS[controls.experiment.target].kind == "series"
    assert controls.experiment.program == "linear"
    offered = values(controls.widgets["target"])
    forecasts = source in FORECASTERS
    assert offered == [
        name
        for name, spec in TARGETS.items()
        if spec.kind == "series" and (forecasts or spec.is_classification)
    ]
    assert sorted(values(controls.widgets["program"])) == fitting_programs("series")
    assert "length" in controls.widgets["input_size"].description
    assert controls.experiment.image_size is None
    for target in offered:
        controls.widgets["target"].value = target
        spec = TARGETS[target]
        assert controls.widgets["n"].max <= spec.most_train
        assert spec.fewest_train <= controls.experiment.n
        assert controls.experiment.mapping == (
            "frequency" if spec.is_classification else "identity"
        )
    controls.widgets["source"].value = "cnn"
    offered = values(controls.widgets["target"])
    assert own_target in offered  # one's own comes back with a source that takes it
    assert "digits" in offered and "ucr:GunPoint" not in offered
    assert TARGETS[controls.experiment.target].kind == "image"
    assert sorted(values(controls.widgets["program"])) == fitting_programs("image")
    assert "pixels" in controls.widgets["input_size"].description


def test_a_forecaster_brings_what_fits_it_and_leaves_nothing_behind(controls):
    controls.set(Experiment())
    start = controls.experiment
    controls.widgets["source"].value = "fracast"
    found = controls.experiment
    assert (found.target, found.program, found.mapping) == ("airline", "linear", "identity")
    assert found.n == controls.widgets["n"].max == 51 and controls.widgets["n"].min == 1
    reductions = dict(controls.widgets["reduce"].options)
    assert reductions["output t+12 alone"] == 11 and "trace: mean over outputs" in reductions
    offered = values(controls.widgets["mapping"])
    assert offered == ["identity", "random", "logit_average", "linear_probe"]
    controls.widgets["target"].value = "ucr:GunPoint"
    assert controls.experiment.mapping == "frequency"
    assert values(controls.widgets["mapping"]) == list(MAPPINGS)
    controls.widgets["target"].value = "solar"
    assert controls.experiment.mapping == "identity"
    controls.widgets["source"].value = "efficientnet-lite0"
    assert replace(controls.experiment, n=start.n) == start


def test_a_classifier_told_to_forecast_does_so_until_it_is_told_otherwise(controls):
    told = Experiment().changed(source="fcn", target="airline", program="linear", n=20)
    controls.set(told)
    assert controls.experiment.target == "airline" and controls.experiment.source == "fcn"
    assert dict(controls.widgets["target"].options)[TARGETS["airline"].label] == "airline"
    controls.widgets["target"].value = "ucr:GunPoint"
    assert (controls.experiment.source, controls.experiment.mapping) == ("fcn", "frequency")
    assert "airline" not in values(controls.widgets["target"])
    controls.set(told)
    controls.widgets["source"].value = "resnet1d"
    assert controls.experiment.target == "ucr:GunPoint"


def test_a_small_set_of_series_lowers_n(controls):
    controls.widgets["source"].value = "fcn"
    controls.widgets["n"].value = 134
    controls.widgets["target"].value = "ucr:PickupGestureWiimoteZ"
    assert controls.experiment.n == 70


@pytest.mark.parametrize(("target", "own"), [("digits", 8), ("mnist-5k", 28)])
@pytest.mark.parametrize("side", [8, 9, 12, 28, 29, 64])
def test_only_image_sizes_that_fit_are_offered(controls, target, own, side):
    controls.widgets["target"].value = target
    controls.widgets["input_size"].value = side
    offered = [value or own for value in values(controls.widgets["image_size"])]
    assert offered != [] and max(offered) < side
    assert (own in offered) is (own < side)
    chosen = controls.experiment.image_size
    assert (own if chosen is None else chosen) < side
    mrviz.programs.Border((1, side, side), (1, own, own), image_size=chosen)  # it can be built


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "cnn"),
        ("target", "mnist-5k"),
        ("program", "linear"),
        ("image_size", 6),
        ("input_size", 16),
    ],
)
def test_no_capacity_after_a_change_of_geometry_until_it_is_known(controls, name, value):
    controls.show_capacity("trainable frame width (pixels)", (1, 6), 4)
    assert controls.experiment.capacity == 4
    controls.widgets[name].value = value
    assert controls.experiment.capacity is None and controls.widgets["capacity"].disabled
    controls.show_capacity("rank", (2, 9), 8)
    slider = controls.widgets["capacity"]
    assert controls.experiment.capacity == 8
    assert (slider.min, slider.max, slider.disabled) == (2, 9, False)
    assert "rank" in slider.description


@pytest.mark.parametrize("name", ["seed", "n", "depth", "width"])
def test_other_changes_keep_the_capacity(controls, name):
    controls.show_capacity("trainable frame width (pixels)", (1, 6), 4)
    controls.widgets[name].value += 1
    assert controls.experiment.capacity == 4


def test_any_range_follows_any_other(controls):
    for span, value in [((1, 2), 2), ((50, 90), 70), ((1, 1), 1), ((3, 500), 3), ((1, 18), 9)]:
        controls.show_capacity("pixels", span, value)
        slider = controls.widgets["capacity"]
        assert (slider.min, slider.max, slider.value) == (*span, value)


def test_a_program_without_capacity(controls):
    controls.show_capacity(None, None, None)
    assert controls.widgets["capacity"].disabled and controls.experiment.capacity is None
    assert "none" in controls.widgets["capacity"].description


def test_own_objects_are_offered_and_selected(controls, own_source, own_target):
    program = mrviz.programs.Linear((1, 12, 12), (1, 6, 6))
    controls.set(Experiment(source=own_source, target=own_target, program=program, n=18))
    shown = controls.experiment
    assert (shown.source, shown.target, shown.program) == (own_source, own_target, program)
    assert [hidden(controls.widgets[k]) for k in ("depth", "width", "groups", "input_size")] == [
        True
    ] * 4
    assert {value for value in values(controls.widgets["reduce"]) if value in (0, 1, 2, 3)} == {
        0,
        1,
        2,
    }
    labels = {name: controls.widgets[name].label for name in ("source", "target", "program")}
    assert labels == {"source": "me", "target": "mine", "program": "Linear"}
    controls.widgets["source"].value = "cnn"
    assert own_source in values(controls.widgets["source"])
    controls.widgets["source"].value = own_source
    assert controls.experiment.source is own_source


def test_choosing_a_small_target_lowers_n_to_what_it_has(controls, changes, own_target):
    controls.set(replace(SMALL, target=own_target, n=18))
    controls.widgets["target"].value = "mnist-5k"
    controls.widgets["n"].value = 200
    controls.widgets["target"].value = own_target
    assert controls.experiment.n == 18 and controls.widgets["n"].min == 3


def test_a_regression_target_with_more_outputs_than_samples(controls):
    x = torch.rand(8, 1, 6, 6)
    target = mrviz.Target(x[:5], torch.rand(5, 20), x[5:], torch.rand(3, 20))
    controls.set(replace(SMALL, target=target, mapping="identity", n=5))
    assert controls.experiment.n == 5


def test_a_class_that_the_new_target_lacks_is_deselected(controls, own_target):
    controls.set(replace(SMALL, target=own_target, n=18))
    controls.widgets["target"].value = "digits"
    controls.widgets["reduce"].value = 7
    controls.widgets["target"].value = own_target
    assert controls.experiment.reduce == "full"


def test_every_choice_has_a_control_with_description_and_tooltip(controls):
    names = {f.name for f in fields(Experiment)} - {
        "trained_on",
        "options",
    }  # shares "weights"; see below
    assert set(controls.widgets) == names
    for source in SOURCES:
        controls.widgets["source"].value = source
        for widget in controls.widgets.values():
            assert widget.description.strip() and widget.tooltip.strip()


def test_on_change_once_for_each_change_by_the_user(controls, changes):
    for name, value in [
        ("source", "vgg"),
        ("groups", 1),
        ("weights", "digits"),
        ("target", "mnist-5k"),
        ("input_size", 40),
        ("program", "linear"),
        ("program", "border"),
        ("image_size", 16),
        ("n", 33),
        ("reduce", "trace"),
        ("dtype", "float64"),
        ("mapping", "identity"),
        ("seed", 5),
        ("capacity", 3),
    ]:
        changes.clear()
        controls.widgets[name].value = value
        assert changes == [name]


def test_set_and_show_capacity_are_silent(controls, changes):
    controls.set(Experiment(source="resnet", target="mnist-5k", n=100, program="linear", seed=9))
    controls.set(SMALL)
    controls.show_capacity("pixels", (3, 40), 30)
    controls.show_capacity(None, None, None)
    assert changes == []


def test_silence_in_one_thread_does_not_swallow_the_users_change(controls, changes):
    inside, go_on = threading.Event(), threading.Event()

    def hold(_):
        inside.set()
        assert go_on.wait(10)

    controls.widgets["capacity"].observe(hold, "description")
    thread = threading.Thread(target=controls.show_capacity, args=("frame", (1, 6), 4))
    thread.start()
    assert inside.wait(10)
    controls.widgets["seed"].value = 3
    go_on.set()
    thread.join(10)
    assert changes == ["seed"]


def test_close_leaves_other_widgets_alone(controls, changes):
    other, bystander = Controls(SMALL, ignore), w.HTML("still here")
    seed = other.widgets["seed"]
    other.close()
    assert seed.comm is None
    assert bystander.comm is not None and controls.widgets["seed"].comm is not None
    bystander.close()


def test_every_mapping_is_offered_by_its_label(controls):
    offered = controls.widgets["mapping"].options
    assert list(offered) == [(spec.label, name) for name, spec in MAPPINGS.items()]


def shown_options(controls):
    group = controls.options
    return None if hidden(group.box) else [child.value for child in group.box.children[1:]]


def test_options_of_program_and_mapping_are_shown_and_the_rest_hidden(controls, changes):
    assert list(controls.options.widgets) == ["activation"]
    controls.widgets["mapping"].value = "bayesian_plus"
    assert shown_options(controls) == ["sigmoid", 1.0, 0.15]
    kinds = [type(widget) for widget in controls.options.widgets.values()]
    assert kinds == [w.Dropdown, w.SelectionSlider, w.SelectionSlider]
    controls.options.widgets["lam"].value = 2.0
    controls.widgets["program"].value = "linear"
    assert controls.experiment.options == {"lam": 2.0}, "those of the mapping stay"
    assert isinstance(controls.options.widgets["bias"], w.Checkbox)
    controls.options.widgets["bias"].value = False
    controls.widgets["mapping"].value = "identity"
    assert controls.experiment.options == {"bias": False}
    controls.widgets["program"].value = "frequency"
    assert shown_options(controls) is None and controls.experiment.options == {}
    assert changes == ["mapping", "options", "program", "options", "mapping", "program"]
    for widget in controls.options.widgets.values():
        assert widget.tooltip


def test_only_options_of_the_program_put_the_capacity_back(controls):
    controls.set(replace(SMALL, mapping="bayesian", capacity=1))
    controls.options.widgets["lam"].value = 2.0
    assert controls.experiment.capacity == 1
    controls.options.widgets["activation"].value = "identity"
    assert controls.experiment.capacity is None


def test_values_that_no_slider_offers_are_shown_and_none_is_automatic(controls, changes):
    chosen = SMALL.changed(program="scaled_border", scale=0.33, mapping="bayesian", lam=0.25)
    controls.set(chosen)
    assert controls.experiment == chosen and changes == []
    slider = controls.options.widgets["scale"]
    places = [label for label, _ in slider.options]
    assert places[0] == "auto" and places[3:6] == ["0.3", "0.33", "0.4"]
    controls.set(SMALL.changed(program="scaled_border"))
    assert controls.options.widgets["scale"].index == 0
    assert controls.experiment.options == {}


def test_an_option_that_declares_nothing_keeps_its_value_without_a_widget():
    from mrviz.programs.options import declared
    from mrviz.widgets.options import OptionControls

    def make(*, places=3, count: int = 2, name: str = "x"): ...

    found = OptionControls(ignore)
    found.show(declared(make, ["places", "count", "name"]), {"name": "y"})
    assert list(found.widgets) == ["count"]
    assert found.values == {"places": 3, "count": 2, "name": "y"}
    found.close()


def test_a_program_gets_its_controls_and_its_choices_from_its_own_file(capsys):
    from typing import Annotated, Literal

    from mrviz import cli
    from mrviz.programs import Overlay, program
    from mrviz.programs.options import Between

    class Tinted(Overlay):
        key, label = "tinted", "tinted overlay"

        def __init__(
            self,
            source_shape,
            target_shape,
            *,
            tint: Annotated[float, Between(0, 1, 0.25), "added everywhere"] = 0.5,
            ink: Literal["warm", "cold"] = "warm",
        ):
            super().__init__(source_shape, target_shape)
            self.tint = tint if ink == "warm" else -tint

        def forward(self, x):
            return super().forward(x) + self.tint

    program(Tinted)
    controls = Controls(SMALL.changed(program="tinted"), ignore)
    try:
        tint, ink = controls.options.widgets["tint"], controls.options.widgets["ink"]
        assert (values(tint), tint.value) == ([0, 0.25, 0.5, 0.75, 1], 0.5)
        assert (values(ink), ink.value) == (["warm", "cold"], "warm")
        assert tint.tooltip == "added everywhere"
        tint.value = 0.75
        experiment = controls.experiment
        assert "tint=0.75" in experiment.code()
        built = experiment.build(experiment.load_source(progress=False), experiment.load_target())
        assert built.program.tint == 0.75
        wrong = ["spectrum", "--program", "tinted", "--option", "ink=green"]
        assert cli.main(wrong) == 2
        assert "ink must be one of 'warm', 'cold', got 'green'" in capsys.readouterr().err
    finally:
        controls.close()
        del PROGRAMS["tinted"]
