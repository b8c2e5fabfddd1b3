"""Grids of choices, and the configurations they stand for."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mrviz.errors import InputError
from mrviz.experiment import NAMES, Experiment
from mrviz.pairing import has_labels, mapping_fits
from mrviz.programs.chosen import declared_by, in_words
from mrviz.programs.losses import LOSSES
from mrviz.programs.training import (
    FULL_BATCH,
    KEEP,
    OPTIMIZERS,
    STEPS,
    check_momentum,
    check_rate,
)
from mrviz.targets import SPLITS
from mrviz.targets.options import as_choice, as_count

Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Values by choice, or several such mappings, whose configurations are joined."""

KINDS = ("empirical", "infinite-width")


@dataclass(frozen=True)
class Settings:
    """How each run trains and what it measures beside.

    Attributes:
        loss: "cross_entropy" or "squared".
        optimizer: "adam", "gd", "momentum" or "sgd".
        lr: step size; default: Adam's own, else half of the largest stable one of the model.
        steps: number of steps.
        batch_size: of mini-batches.
        momentum: of "momentum".
        n_test: held-out samples; default: as many as :func:`~mrviz.load_target` has.
        n_val: validation samples; default: none.
        split: "balanced" or "own"; see :func:`~mrviz.load_target`; default: "balanced".
        keep: which parameters count in the end, "last", or those at the recorded step with the
            lowest "val_loss" or the highest "val_accuracy"; default: "last".
        record_every: steps between the recorded ones, where validation samples choose;
            default: as :func:`~mrviz.train` has it.
        indicators: whether conditions, prediction and baselines are computed before training.
        source_kernel: kind of the source kernel whose λ_min[K_S] is measured, "empirical" or
            "infinite-width"; default: it is not.
    """

    loss: str = "cross_entropy"
    optimizer: str = "adam"
    lr: float | None = None
    steps: int = STEPS
    batch_size: int | None = None
    momentum: float | None = None
    n_test: int | None = None
    n_val: int | None = None
    split: str | None = None
    keep: str | None = None
    record_every: int | None = None
    indicators: bool = True
    source_kernel: str | None = None

    def __post_init__(self) -> None:
        as_choice(self.loss, LOSSES, "loss")
        as_choice(self.optimizer, OPTIMIZERS, "optimizer")
        check_rate(self.lr)
        as_count(self.steps, "steps", 1)
        if self.split is not None:
            as_choice(self.split, SPLITS, "split")
        for name in ("n_test", "n_val"):
            if getattr(self, name) is not None:
                as_count(getattr(self, name), name, 1)
        if self.keep is not None:
            as_choice(self.keep, KEEP, "keep")
            if self.chooses and self.n_val is None:
                raise InputError(f"keep={self.keep!r} needs validation samples: pass n_val")
        if self.record_every is not None:
            as_count(self.record_every, "record_every", 1)
            if not self.chooses:
                raise InputError(
                    "record_every says how often validation samples choose: it needs "
                    "keep='val_loss' or 'val_accuracy'"
                )
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size", 1)
            if self.optimizer in FULL_BATCH:
                raise InputError(f"batch_size does not apply to optimizer={self.optimizer!r}")
        if self.momentum is not None:
            check_momentum(self.momentum)
            if self.optimizer != "momentum":
                raise InputError(
                    f"momentum applies to optimizer='momentum' only, got {self.optimizer!r}"
                )
        if self.source_kernel is not None:
            as_choice(self.source_kernel, KINDS, "source_kernel")

    @property
    def chooses(self) -> bool:
        """Whether validation samples choose among the recorded steps."""
        return self.keep not in (None, "last")


EXPERIMENT = {f.name: f.default for f in fields(Experiment) if f.name != "options"}
SETTINGS = {field.name: field.default for field in fields(Settings)}


@dataclass(frozen=True)
class Configuration:
    """One run of a study.

    Attributes:
        experiment: source, target, program and kernel, all by name.
        settings: how it is trained and measured.
    """

    experiment: Experiment
    settings: Settings

    def __post_init__(self) -> None:
        """Checks that mapping and loss suit the target, which no run could mend."""
        experiment = self.experiment
        if has_labels(experiment.target):
            return
        if self.settings.loss == "cross_entropy":
            raise InputError(
                f"target {experiment.target!r} has real-valued outputs, cross-entropy needs class "
                "labels: the study needs loss='squared'"
            )
        if not mapping_fits(experiment.mapping, experiment.options, experiment.target):
            raise InputError(
                f"mapping {experiment.mapping!r} needs class labels, but target "
                f"{experiment.target!r} has real-valued outputs: the study needs "
                "mapping='identity' or another one without labels"
            )

    def to_dict(self) -> dict[str, Any]:
        """All choices that are not ``None``, as JSON values."""
        values = {name: getattr(self.experiment, name) for name in EXPERIMENT}
        values |= {name: getattr(self.settings, name) for name in SETTINGS}
        values |= self.experiment.options
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Configuration:
        """The inverse of ``to_dict``.

        Raises:
            InputError: a choice that does not exist, or a value it cannot have.
        """
        owners = {owner: values.get(owner, EXPERIMENT[owner]) for owner in ("program", "mapping")}
        reserved = {*NAMES, *SETTINGS}
        options = {n for owner, of in owners.items() for n in declared_by(owner, of, reserved)}
        unknown = sorted(set(values) - set(EXPERIMENT) - set(SETTINGS) - options)
        if unknown:
            raise InputError(
                f"a study has no choice {', '.join(unknown)}; the choices are "
                f"{', '.join([*EXPERIMENT, *SETTINGS])}; "
                f"{in_words(owners['program'], owners['mapping'], reserved)}"
            )
        return cls(
            Experiment(
                **{k: v for k, v in values.items() if k in EXPERIMENT},
                options={k: v for k, v in values.items() if k in options},
            ),
            Settings(**{k: v for k, v in values.items() if k in SETTINGS}),
        )

    @property
    def text(self) -> str:
        """The choices as JSON, the same for the same choices."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @property
    def key(self) -> str:
        """SHA-256 of the choices."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def configurations(grid: Grid) -> tuple[Configuration, ...]:
    """All combinations of a grid's values, each once, in the order of the grid.

    Args:
        grid: for each choice a value, or a list of values; see :class:`Settings` for training,
            and :class:`~mrviz.experiment.Experiment` for everything else; options of program and
            mapping go by their own names. Several such mappings
            in a list are joined, so that choices which apply to some sources or programs only,
            such as a width of a border, need not be combined with all others.

    Raises:
        InputError: an empty grid, a choice that does not exist, or a value it cannot have.

    Example:
        >>> grid = {"source": "dnn", "depth": [1, 2], "target": "digits", "seed": range(3)}
        >>> len(configurations(grid)), len(configurations([grid, {**grid, "depth": [2, 3]}]))
        (6, 9)
    """
    found: dict[str, Configuration] = {}
    for part in [grid] if isinstance(grid, Mapping) else list(grid):
        if not isinstance(part, Mapping):
            raise InputError(f"a grid is a mapping from choices to values, got {part!r}")
        columns = [_values(name, values) for name, values in part.items()]
        for chosen in itertools.product(*columns):
            made = Configuration.from_dict(dict(zip(part, chosen, strict=True)))
            found.setdefault(made.key, made)
    if not found:
        raise InputError("the grid is empty: it stands for no run")
    return tuple(found.values())


def _values(name: str, values: Any) -> list[Any]:
    """The values of one choice, as JSON values."""
    several = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    chosen = [v.item() if hasattr(v, "item") else v for v in (values if several else [values])]
    for value in chosen:
        if value is not None and not isinstance(value, str | int | float | bool):
            raise InputError(
                f"{name} must be names or numbers in a study, which is kept in a file: got a "
                f"{type(value).__name__}. Rank objects of your own with mrviz.rank_programs"
            )
    return chosen
