"""Which sources, targets, programs and mappings go together, and what is chosen where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.sources import SourceModel, source_spec
from mrviz.targets import TARGETS, ForecastSpec, ForecastTarget, Kind, Target, kind_of

Task = Literal["image", "series", "forecast", "other"]
"""What a source was made for and what a target asks for: to name images or series, to forecast."""

DEFAULTS: dict[str, dict[str, str]] = {
    "image": {"source": "efficientnet-lite0", "target": "mnist-5k", "program": "border"},
    "series": {"source": "fcn", "target": "ucr:GunPoint", "program": "linear"},
    "forecast": {"source": "fracast", "target": "airline", "program": "linear"},
}
"""What is chosen with a source or target of a task where the rest does not fit it."""

MAPPING = {True: "frequency", False: "identity"}
"""The mapping for targets with class labels, and for those with real values."""

SHAPES = {"image": (1, 1, 1), "series": (1, 1)}
"""The smallest shape of each kind."""


def kind_of_source(source: str | SourceModel) -> Kind:
    """The kind of a source's inputs."""
    if isinstance(source, str):
        return source_spec(source).kind
    return kind_of(source.input_shape)


def kind_of_target(target: str | Target) -> Kind:
    """The kind of a target's samples."""
    return TARGETS[target].kind if isinstance(target, str) else kind_of(target.shape)


def task_of_source(source: str | SourceModel) -> Task:
    """The task of a source; of one's own sources only the kind of input is known."""
    if isinstance(source, str) and source_spec(source).forecasts:
        return "forecast"
    return kind_of_source(source)


def task_of_target(target: str | Target) -> Task:
    """The task that a target sets."""
    known = TARGETS[target] if isinstance(target, str) else target
    if isinstance(known, ForecastSpec | ForecastTarget):
        return "forecast"
    return kind_of_target(target)


def has_labels(target: str | Target) -> bool:
    """Whether a target has class labels rather than real values."""
    return (TARGETS[target] if isinstance(target, str) else target).is_classification


def suits(source: str | SourceModel, target: str | Target) -> bool:
    """Whether a source and a target are offered together.

    A forecaster's outputs can stand for classes, but a classifier chosen by name has too few for
    the steps of a forecast, unless it is given more.
    """
    kinds = {kind_of_source(source), kind_of_target(target)}
    if "other" in kinds:
        return True
    named = isinstance(source, str) and isinstance(target, str)
    forecast = named and task_of_target(target) == "forecast"
    return len(kinds) == 1 and not (forecast and task_of_source(source) != "forecast")


def mapping_fits(mapping: Any, options: Mapping[str, Any], target: str | Target) -> bool:
    """Whether a target has what a mapping, with its options, is made from."""
    spec = MAPPINGS.get(mapping) if isinstance(mapping, str) else None
    return spec is None or has_labels(target) or not spec.needs_labels(options)


def fitting(now: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """What goes along with a choice of source or target, so that all four fit each other.

    A source brings a target, or a target a source, where the present one does not suit it.
    Program and mapping go to what fits where they do not; and with another task, or between
    labels and real values, from the default of the old one to that of the new.

    Args:
        now: ``source``, ``target``, ``program``, ``mapping`` and ``options`` before the choice.
        choices: what is chosen; nothing of it is changed.

    Example:
        >>> now = {"source": "cnn", "target": "digits", "program": "border", "options": {}}
        >>> fitting({**now, "mapping": "frequency"}, {"source": "fracast"})
        {'target': 'airline', 'program': 'linear', 'mapping': 'identity'}
    """
    pair = {name: choices.get(name, now[name]) for name in ("source", "target")}
    chosen = [name for name in pair if name in choices]
    target = pair["target"]
    if not chosen or not (isinstance(target, Target) or target in TARGETS):
        return {}  # an unknown target is named where the experiment is made
    found: dict[str, Any] = {}
    if len(chosen) == 1 and not suits(**pair):
        other = "target" if chosen == ["source"] else "source"
        task = task_of_source(pair["source"]) if other == "target" else task_of_target(target)
        found[other] = pair[other] = DEFAULTS[task][other]
    before, after = now["target"], pair["target"]
    old, new = task_of_target(before), task_of_target(after)
    program, mapping = now["program"], now["mapping"]
    if "program" not in choices and isinstance(program, str) and new in DEFAULTS:
        unchosen = old != new and program == DEFAULTS.get(old, {}).get("program")
        if unchosen or not PROGRAMS[program].fits(SHAPES[kind_of_target(after)]):
            found["program"] = DEFAULTS[new]["program"]
    if "mapping" not in choices:
        usual = MAPPING[has_labels(after)]
        unchosen = mapping == MAPPING[has_labels(before)]
        if unchosen or not mapping_fits(mapping, now["options"], after):
            found["mapping"] = usual
    return {name: value for name, value in found.items() if value != now[name]}
