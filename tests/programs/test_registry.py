"""Programs by name: options, capacities, and what people are told."""

import pytest

import mrviz
from mrviz.programs import PROGRAMS, Program, build_program
from tests.ntk.common import uniform

SOURCE, TARGET = (3, 12, 12), (1, 6, 6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_can_be_made_by_name(name):
    program = build_program(name, SOURCE, TARGET, seed=3)
    assert isinstance(program, Program) and program.closed_form
    u = program(uniform(2, *TARGET).float())
    assert u.shape == (2, *SOURCE)
    assert len(program.describe()) > 20 and program.label and PROGRAMS[name].label


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_option_of_the_capacity_sets_the_capacity(name):
    option = PROGRAMS[name].capacity
    program = build_program(name, SOURCE, TARGET)
    assert (option is None) == (program.capacity_range is None) == (program.capacity_label is None)
    if option is None:
        return
    low, high = program.capacity_range
    assert option in PROGRAMS[name].options and low < high == program.capacity
    assert build_program(name, SOURCE, TARGET, **{option: 2}).capacity == 2
    with pytest.raises(mrviz.InputError, match=rf"{option}=999 is outside {low} to {high}"):
        build_program(name, SOURCE, TARGET, **{option: 999})


def test_only_borders_need_a_frame():
    for name, spec in PROGRAMS.items():
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
