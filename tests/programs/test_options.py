"""What signatures declare about options, and values that are checked by it."""

from typing import Annotated, Literal, Optional

import numpy as np
import pytest

import mrviz
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.programs.options import Between, Options, declared


def make(
    *,
    free=1,
    flag: bool = True,
    count: Annotated[int, Between(1, 3), "how many"] = 2,
    share: Annotated[float | None, Between(0, 1, 0.5)] = None,
    letter: Optional[Annotated[Literal["a", "b"], "which"]] = None,  # noqa: UP045
    unknown: "NotThere" = 3,  # noqa: F821
): ...


OPTIONS = declared(make, ["free", "flag", "count", "share", "letter", "unknown"])


def test_types_ranges_choices_and_help_are_read_from_annotations():
    assert OPTIONS["count"].kind is int and OPTIONS["count"].offered == (1, 2, 3)
    assert OPTIONS["count"].help == "how many"
    assert OPTIONS["share"].offered == (None, 0.0, 0.5, 1.0)
    assert OPTIONS["letter"].offered == (None, "a", "b") and OPTIONS["letter"].help == "which"
    assert OPTIONS["flag"].kind is bool and OPTIONS["flag"].offered == ()
    for name in ("free", "unknown"):
        assert OPTIONS[name].kind is None and OPTIONS[name].offered == ()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("flag", "no", False),
        ("flag", "True", True),
        ("count", "3", 3),
        ("share", "0.25", 0.25),
        ("share", "1", 1.0),
        ("letter", "b", "b"),
        ("free", "word", "word"),
        ("free", "2.5", 2.5),
    ],
)
def test_texts_of_the_command_line(name, text, value):
    found = OPTIONS[name].checked(OPTIONS[name].parsed(text))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flag", 1),
        ("flag", "no"),
        ("count", True),
        ("count", 2.0),
        ("share", float("nan")),
        ("share", "half"),
        ("letter", "c"),
        ("free", float("inf")),
        ("free", [1]),
    ],
)
def test_wrong_values_are_named(name, value):
    with pytest.raises(mrviz.InputError, match=f"^{name} must be"):
        OPTIONS[name].checked(value)


def test_numbers_of_numpy_become_those_of_python():
    assert type(OPTIONS["count"].checked(np.int64(2))) is int
    assert type(OPTIONS["share"].checked(np.float32(0.5))) is float
    assert OPTIONS["flag"].checked(np.bool_(False)) is False


def test_options_are_keys_whatever_their_order():
    one, other = Options({"a": 1, "b": 2}), Options({"b": 2, "a": 1})
    assert one == other == {"a": 1, "b": 2} and hash(one) == hash(other) and len({one, other}) == 1


def test_every_option_there_is_says_what_it_is():
    for spec in (PROGRAMS | MAPPINGS).values():
        for option in spec.declared.values():
            if option.name != "image_size":
                assert option.help and (option.kind is bool or option.offered), option
                assert option.default is None or option.checked(option.default) == option.default
                assert option.kind is bool or option.default in option.offered
