"""Programs by name: options, capacities, and what people are told."""

import pytest

import mrviz
from mrviz.programs import PROGRAMS, Program, build_program, program
from tests.ntk.common import uniform

SOURCE, TARGET = (3, 12, 12), (1, 6, 6)
SERIES = (2, 24), (1, 8)


def shapes(name):
    return (SOURCE, TARGET) if PROGRAMS[name].fits(TARGET) else SERIES


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_can_be_made_by_name(name):
    source, target = shapes(name)
    made = build_program(name, source, target, seed=3)
    assert isinstance(made, Program) and made.closed_form
    u = made(uniform(2, *target).float())
    assert u.shape == (2, *source)
    assert len(made.describe()) > 20 and made.label and PROGRAMS[name].label


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_option_of_the_capacity_sets_the_capacity(name):
    option, (source, target) = PROGRAMS[name].capacity, shapes(name)
    made = build_program(name, source, target)
    assert (option is None) == (made.capacity_range is None) == (made.capacity_label is None)
    assert PROGRAMS[name].capacity_label == made.capacity_label
    if option is None:
        return
    low, high = made.capacity_range
    assert option in PROGRAMS[name].options and low < high == made.capacity
    assert build_program(name, source, target, **{option: 2}).capacity == 2
    with pytest.raises(mrviz.InputError, match=rf"{option}=999 is outside {low} to {high}"):
        build_program(name, source, target, **{option: 999})


def test_only_borders_need_a_frame():
    for name, spec in PROGRAMS.items():
        if not spec.fits(TARGET):
            continue
        if spec.framed:
            with pytest.raises(mrviz.InputError, match="no frame"):
                build_program(name, TARGET, TARGET)
        else:
            build_program(name, TARGET, TARGET)


def test_labels_differ_and_are_not_keys_with_other_letters():
    labels = {name: spec.label for name, spec in PROGRAMS.items()}
    assert len(set(labels.values())) == len(labels)
    assert labels["linear_border"] == "linear + border"
    assert not any("_" in label for label in labels.values())


def test_the_simple_ones_come_first():
    assert list(PROGRAMS)[:4] == ["border", "overlay", "linear", "linear_border"]


class Own(Program):
    """A program of a user."""

    key = "own"
    label = "my own"

    def forward(self, x):
        return x


def test_a_decorated_class_is_known_by_name_and_can_be_made_again():
    try:
        assert program(Own) is Own and PROGRAMS["own"].make is Own
        assert program(Own) is Own, "a notebook cell that is run twice"
        assert isinstance(build_program("own", TARGET, TARGET), Own)
        other = type("Other", (Own,), {})
        with pytest.raises(mrviz.InputError, match=r"'own' is .*Own already: choose another key"):
            program(other)
        assert PROGRAMS["own"].make is Own
    finally:
        del PROGRAMS["own"]


def test_a_class_that_declares_no_name_is_told_so():
    nameless = type("Nameless", (Program,), {})
    with pytest.raises(mrviz.InputError, match="Nameless needs a class attribute 'key'"):
        program(nameless)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vp", {}, "must be one of border, overlay, linear, linear_border, low_rank, conv"),
        ("border", {"wdth": 1, "rank": 2}, "has no option rank, wdth; its options are width"),
        ("low_rank", {"width": 2}, "has no option width; its options are rank, max_rank"),
        ("convolution", {"image_size": 3}, "no option image_size; its options are size, max_size"),
        ("scale", {"capacity": 2}, "has no option capacity; its options are scale"),
    ],
)
def test_wrong_names_and_options(name, options, message):
    with pytest.raises(mrviz.InputError, match=message):
        build_program(name, SOURCE, TARGET, **options)


def test_seeds_reach_programs_that_start_at_random():
    def directions(seed):
        return build_program("low_rank", SOURCE, TARGET, seed=seed).directions

    assert directions(1).equal(directions(1)) and not directions(1).equal(directions(2))
    for name in ("scale", "convolution", "border", "overlay"):
        assert "seed" not in PROGRAMS[name].options
        build_program(name, SOURCE, TARGET, seed=5)
