"""Mappings by name: what each is called, which options it takes, and how it is made from data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from collections.abc import Mapping as Options
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.programs.mappings.averaging import (
    LogitAverage,
    ProbabilityAverage,
    by_frequency,
    consecutive,
    drawn,
    group_size,
)
from mrviz.programs.mappings.base import Identity, LinearHead, Mapping, Matrix
from mrviz.programs.mappings.refreshed import RATIO, Bayesian, BayesianPlus, Iterative, Refreshed
from mrviz.programs.mappings.selection import Frequency, Random, prediction_counts
from mrviz.programs.options import Between, Option, declared
from mrviz.targets.options import as_choice

Assignment = Literal["consecutive", "random", "frequency"]
"""How :class:`~mrviz.programs.mappings.averaging.ManyToOne` mappings choose source outputs."""

Start = Literal["frequency", "identity", "random", "uniform"]
"""What a linear probe starts from; "uniform" are the start values of ``torch.nn.Linear``."""

Smoothing = Annotated[float, Between(0, 10, 0.1), "λ, the Laplace smoothing"]
Ratio = Annotated[
    float, Between(0.05, 1, 0.05), "share of C: how many of the largest probabilities count"
]
Size = Annotated[int | None, Between(1, 20), "m, the source outputs for each target class"]
Assigned = Annotated[Assignment, "which source outputs stand for a class"]


@dataclass(frozen=True)
class MappingData:
    """What a mapping may be made from.

    Attributes:
        n_source: c_S.
        n_classes: C.
        labels: labels of the training samples, or ``None`` where targets are real-valued.
        predict: gives the source's outputs (n, c_S) for the programmed training inputs; called
            by mappings that need them, once.
    """

    n_source: int
    n_classes: int
    labels: Tensor | None
    predict: Callable[[], Tensor]

    @cached_property
    def outputs(self) -> Tensor:
        """Source outputs (n, c_S)."""
        return self.predict()

    def labels_for(self, mapping: str, instead: str = "use mapping='identity'") -> Tensor:
        """The labels.

        Args:
            mapping: name of the mapping that needs them.
            instead: what to do without them.

        Raises:
            InputError: there are none.
        """
        if self.labels is None:
            raise InputError(
                f"mapping {mapping!r} needs class labels, but this target has real-valued "
                f"outputs: {instead} or a matrix"
            )
        return self.labels


@dataclass(frozen=True)
class MappingSpec:
    """One entry of :data:`MAPPINGS`.

    Attributes:
        name: key in :data:`MAPPINGS`.
        kind: the class of mapping.
        help: one sentence for people who choose.
        make: called with :class:`MappingData` and options.
        labelled: whether it is made from class labels whatever its options.
    """

    name: str
    kind: type[Mapping]
    help: str
    make: Callable[..., Mapping]
    labelled: bool = False

    def needs_labels(self, options: Options[str, Any] | None = None) -> bool:
        """Whether it cannot be made for real-valued targets, with some options.

        Example:
            >>> probe = MAPPINGS["linear_probe"]
            >>> probe.needs_labels(), probe.needs_labels({"start": "identity"})
            (True, False)
        """
        chosen = {name: option.default for name, option in self.declared.items()}
        chosen |= {name: value for name, value in (options or {}).items() if name in chosen}
        return self.labelled or "frequency" in chosen.values()

    @property
    def label(self) -> str:
        """Short name shown to people."""
        return self.kind.label

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(inspect.signature(self.make).parameters)[1:]

    @cached_property
    def declared(self) -> dict[str, Option]:
        """The options but the seed, with what their annotations declare."""
        return declared(self.make, [name for name in self.options if name != "seed"])

    @property
    def acts_on(self) -> str:
        """What is weighed: "logits" or "probabilities"."""
        return self.kind.acts_on

    @property
    def has_matrix(self) -> bool:
        """Whether f = b f_S(u) with a matrix b."""
        return self.acts_on == "logits"

    @property
    def trainable(self) -> bool:
        """Whether training moves the matrix."""
        return self.kind.trainable

    @property
    def refreshes(self) -> bool:
        """Whether training fits it anew once an epoch."""
        return self.kind.refreshes


def _identity(data: MappingData) -> Mapping:
    return Identity(data.n_classes)


def _random(data: MappingData, *, seed: int = 0) -> Mapping:
    return Random.draw(data.n_source, data.n_classes, seed)


def _frequency(data: MappingData) -> Mapping:
    labels = data.labels_for("frequency")
    return Frequency.fit(data.outputs, labels, data.n_classes)


def _iterative(data: MappingData) -> Mapping:
    return _refreshed(Iterative, "iterative", data)


def _bayesian(data: MappingData, *, lam: Smoothing = 1.0) -> Mapping:
    return _refreshed(Bayesian, "bayesian", data, lam=lam)


def _bayesian_plus(data: MappingData, *, lam: Smoothing = 1.0, ratio: Ratio = RATIO) -> Mapping:
    return _refreshed(BayesianPlus, "bayesian_plus", data, lam=lam, ratio=ratio)


def _refreshed(kind: type[Refreshed], name: str, data: MappingData, **options: Any) -> Mapping:
    labels = data.labels_for(name)
    return kind.fit(data.outputs, labels, data.n_classes, **options)


def _logit_average(
    data: MappingData, *, m: Size = None, assignment: Assigned = "frequency", seed: int = 0
) -> Mapping:
    return LogitAverage(_groups("logit_average", data, m, assignment, seed))


def _probability_average(
    data: MappingData, *, m: Size = None, assignment: Assigned = "consecutive", seed: int = 0
) -> Mapping:
    data.labels_for("probability_average")  # outputs are logarithms of class probabilities
    return ProbabilityAverage(_groups("probability_average", data, m, assignment, seed))


def _groups(
    name: str, data: MappingData, m: int | None, assignment: str, seed: int
) -> tuple[tuple[int, ...], ...]:
    as_choice(assignment, get_args(Assignment), "assignment")
    m = group_size(data.n_source, data.n_classes, m)
    if assignment == "consecutive":
        groups = consecutive(data.n_classes, m)
    elif assignment == "random":
        groups = drawn(data.n_source, data.n_classes, m, seed)
    else:
        labels = data.labels_for(name, "pass assignment='consecutive'")
        groups = by_frequency(prediction_counts(data.outputs, labels, data.n_classes), m)
    return tuple(tuple(group) for group in groups)


def _linear_probe(
    data: MappingData,
    *,
    start: Annotated[Start, "the mapping that training starts from"] = "frequency",
    seed: int = 0,
) -> Mapping:
    as_choice(start, get_args(Start), "start")
    if start == "frequency":
        data.labels_for("linear_probe", "pass start='identity'")
    if start != "uniform":
        return LinearHead(build_mapping(start, data, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    size = (data.n_classes, data.n_source)
    values = 2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1
    return LinearHead(Matrix(values * data.n_source**-0.5))


MAPPINGS: dict[str, MappingSpec] = {
    spec.name: spec
    for spec in (
        MappingSpec(
            "frequency",
            Frequency,
            "each class gets the source output that it is predicted as most often (FLM)",
            _frequency,
            labelled=True,
        ),
        MappingSpec("identity", Identity, "the first C source outputs", _identity),
        MappingSpec("random", Random, "each class gets a random source output", _random),
        MappingSpec(
            "iterative",
            Iterative,
            "the frequency mapping, computed anew in each epoch of training (ILM)",
            _iterative,
            labelled=True,
        ),
        MappingSpec(
            "bayesian",
            Bayesian,
            "all source outputs, weighed by how well their predictions tell the class (BLM)",
            _bayesian,
            labelled=True,
        ),
        MappingSpec(
            "bayesian_plus",
            BayesianPlus,
            "as Bayesian, from the largest probabilities instead of predictions (BLM+)",
            _bayesian_plus,
            labelled=True,
        ),
        MappingSpec(
            "probability_average",
            ProbabilityAverage,
            "the mean probability of m source classes for each class (Voice2Series)",
            _probability_average,
            labelled=True,
        ),
        MappingSpec(
            "logit_average",
            LogitAverage,
            "the mean logit of m source classes for each class (AutoVP)",
            _logit_average,
        ),
        MappingSpec(
            "linear_probe",
            LinearHead,
            "a trainable matrix and bias on all source outputs",
            _linear_probe,
        ),
    )
}
"""Mappings by the name used in :func:`~mrviz.reprogram`, the Explorer and the command line."""


def build_mapping(name: str, data: MappingData, **options: Any) -> Mapping:
    """A mapping by name; ``seed`` is dropped for mappings without randomness.

    Raises:
        InputError: an unknown name, an option the mapping does not have, or data that do not fit.
    """
    if name not in MAPPINGS:
        raise InputError(f"mapping must be one of {', '.join(MAPPINGS)}, got {name!r}")
    spec = MAPPINGS[name]
    if "seed" not in spec.options:
        options.pop("seed", None)
    unknown = sorted(set(options) - set(spec.options))
    if unknown:
        known = f"its options are {', '.join(spec.options)}" if spec.options else "it has none"
        raise InputError(f"mapping {name!r} has no option {', '.join(unknown)}; {known}")
    return spec.make(data, **options)
