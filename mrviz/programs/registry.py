"""Programs by name: what each is called, which options it takes, and how it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mrviz.errors import InputError
from mrviz.programs.base import Program
from mrviz.programs.chain import linear_border
from mrviz.programs.convolution import Convolution
from mrviz.programs.linear import Linear
from mrviz.programs.low_rank import LowRankLinear
from mrviz.programs.prompts import Border, Overlay
from mrviz.programs.scale import Scale
from mrviz.targets.spec import kind_of


@dataclass(frozen=True)
class ProgramSpec:
    """One entry of :data:`PROGRAMS`.

    Attributes:
        label: short name shown to people.
        make: called with source shape, target shape and options.
        capacity: the option that chooses the capacity, where there is one.
        framed: whether the image must leave a frame of the canvas free.
        takes: kinds of input that it works on.
    """

    label: str
    make: Callable[..., Program]
    capacity: str | None = None
    framed: bool = False
    takes: tuple[str, ...] = ("image",)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options."""
        names = inspect.signature(self.make).parameters
        return tuple(name for name in names if not name.endswith("_shape"))

    def fits(self, target_shape: Sequence[int]) -> bool:
        """Whether it works on inputs of this shape."""
        return (kind_of(target_shape) or "other") in self.takes


PROGRAMS: dict[str, ProgramSpec] = {
    "border": ProgramSpec("border", Border, Border.capacity_option, framed=True),
    "overlay": ProgramSpec("overlay", Overlay),
    "linear": ProgramSpec("linear", Linear, takes=("image", "series", "other")),
    "linear_border": ProgramSpec(
        "linear + border", linear_border, Border.capacity_option, framed=True
    ),
    "low_rank": ProgramSpec("low-rank linear", LowRankLinear, LowRankLinear.capacity_option),
    "convolution": ProgramSpec("convolution", Convolution, Convolution.capacity_option),
    "scale": ProgramSpec("image scale", Scale),
}
"""Programs by the name used in :func:`~mrviz.reprogram`, the Explorer and the command line."""


def build_program(
    name: str,
    source_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    **options: Any,
) -> Program:
    """A program by name; ``seed`` is dropped for programs that start without randomness.

    Raises:
        InputError: an unknown name, or an option the program does not have.
    """
    if name not in PROGRAMS:
        raise InputError(f"program must be one of {', '.join(PROGRAMS)}, got {name!r}")
    spec = PROGRAMS[name]
    known = spec.options
    if "seed" not in known:
        options.pop("seed", None)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"program {name!r} has no option {', '.join(unknown)}; its options are "
            f"{', '.join(known)}"
        )
    return spec.make(source_shape, target_shape, **options)
