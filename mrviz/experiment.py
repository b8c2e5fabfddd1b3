"""One choice of source, target, program and kernel: how to build it and write it as code."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from mrviz._checks import as_device
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.pairing import fitting, has_labels, kind_of_source, kind_of_target
from mrviz.programs import MAPPINGS, PROGRAMS, ReprogrammedModel, reprogram
from mrviz.programs.chosen import checked_options, declared_by, in_words
from mrviz.programs.model import check_kinds
from mrviz.programs.options import Option, Options
from mrviz.sources import SourceModel, load_source, source_spec
from mrviz.targets import TARGETS, Target, kind_of, load_target
from mrviz.targets.options import as_choice, as_count

DTYPES = {"float32": torch.float32, "float64": torch.float64}
GEOMETRY = frozenset({"source", "input_size", "target", "program", "image_size"})
"""Choices that change what a capacity means."""

SOURCE_OPTIONS = ("depth", "groups", "width", "input_size", "trained_on", "weights")


HELP = {
    "source": "source model: a name of mrviz, timm:NAME or torchvision:NAME",
    "depth": "depth (level) of a source of a family",
    "groups": "groups of a vgg or resnet",
    "width": "width of a source of a family",
    "input_size": "side of the source's input in pixels, or length of its series",
    "trained_on": "data set a source of a family is trained on; images or series, as it takes",
    "weights": "weights of a pretrained source: pretrained or random",
    "target": "target data set; some are downloaded when first used",
    "n": "number of target training samples in the Gram",
    "program": "input program",
    "capacity": "capacity of the program, how much of it is trainable; default: the largest",
    "image_size": "side the image is resized to before the program places it",
    "mapping": "output mapping",
    "options": "options of the program and the mapping, by name",
    "reduce": "kernel reduction: full, trace, sum or a class number",
    "dtype": "precision of the Jacobians",
    "device": "where to compute: cpu, cuda, cuda:1, …; default: cpu",
    "seed": "seed of weights, programs and samples",
}
"""What each choice is, for the command line."""


@dataclass(frozen=True)
class Experiment:
    """Everything that can be chosen in the Explorer and on the command line; see ``HELP``.

    ``source``, ``target`` and ``program`` are names, or objects of your own. ``options`` are
    those of the program and the mapping that differ from their defaults, but for those that are
    choices by themselves, such as ``image_size``.

    Example:
        >>> Experiment(program="linear", options={"bias": False}).options
        {'bias': False}
    """

    source: str | SourceModel = "efficientnet-lite0"
    depth: int | None = None
    groups: int | None = None
    width: int | None = None
    input_size: int | None = None
    trained_on: str | None = None
    weights: str | None = None
    target: str | Target = "mnist-5k"
    n: int = 64
    program: str | nn.Module = "border"
    capacity: int | None = None
    image_size: int | None = None
    mapping: str = "frequency"
    options: Mapping[str, Any] = Options()
    reduce: str | int = "full"
    dtype: str = "float32"
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.source, SourceModel):
            source_spec(self.source)
        for name, own, known in (
            ("target", Target, TARGETS),
            ("program", nn.Module, PROGRAMS),
            ("mapping", (), MAPPINGS),
            ("dtype", (), DTYPES),
        ):
            if not isinstance(getattr(self, name), own):
                as_choice(getattr(self, name), known, name)
        as_count(self.seed, "seed", 0)
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"n must be a positive number of samples, got {self.n!r}")
        if isinstance(self.program, str):
            self._check_kinds(self.program)
        options = checked_options(self.options, self.program, self.mapping, NAMES)
        object.__setattr__(self, "options", options)

    def changed(self, **choices: Any) -> Experiment:
        """The same experiment with other choices; what no longer applies goes to its default.

        Another source drops the options of the old one, and another source, target, program or
        image size drops the capacity, unless they are among the choices. A target lowers ``n`` to
        the samples it has. A source brings target, program and mapping that fit it, where the
        present ones do not, and so does a target: see :func:`~mrviz.pairing.fitting`. Another
        program or mapping drops the options of the old one.

        Args:
            **choices: fields, and options of program and mapping by their own names.

        Raises:
            InputError: a choice that does not exist.

        Example:
            >>> Experiment().changed(program="linear", bias=False).changed(seed=1).options
            {'bias': False}
        """
        named = {name: choices.pop(name) for name in list(choices) if name not in NAMES}
        dropped = fitting({name: getattr(self, name) for name in NAMES}, choices)
        choices = {**dropped, **choices}
        after = {key: choices.get(key, getattr(self, key)) for key in ("program", "mapping")}
        known = {owner: declared_by(owner, name, NAMES) for owner, name in after.items()}
        if unknown := sorted(set(named) - set(known["program"]) - set(known["mapping"])):
            raise InputError(
                f"no choice {', '.join(unknown)} here; the choices are {', '.join(NAMES)}; "
                f"{in_words(after['program'], after['mapping'], NAMES)}"
            )
        kept = {
            name: value
            for name, value in self.options.items()
            if any(name in known[owner] for owner in known if owner not in choices)
        }
        choices["options"] = {**choices.get("options", kept), **named}
        if any(self.options.get(name) != choices["options"].get(name) for name in known["program"]):
            dropped["capacity"] = None
        if "source" in choices:
            dropped |= dict.fromkeys(SOURCE_OPTIONS)
        if "program" in choices:
            dropped["image_size"] = None
        if GEOMETRY & set(choices):
            dropped["capacity"] = None
        if "target" in choices:
            target = choices["target"]
            if isinstance(target, Target):
                dropped["n"] = min(self.n, len(target.x_train))
            elif target in TARGETS:
                dropped["n"] = min(self.n, TARGETS[target].most_train)
        return replace(self, **{**dropped, **choices})

    def _check_kinds(self, program: str) -> None:
        """Raises where source, target and program chosen by name do not take the same kind."""
        if isinstance(self.source, str) or isinstance(self.target, str):
            check_kinds(kind_of_source(self.source), kind_of_target(self.target))
        shape = self.target.shape if isinstance(self.target, Target) else TARGETS[self.target].shape
        if kind_of(shape) == "series" and not PROGRAMS[program].fits(shape):
            fitting = ", ".join(name for name, spec in PROGRAMS.items() if spec.fits(shape))
            raise InputError(
                f"program {program!r} does not work on series, which the target holds: choose one "
                f"of {fitting}"
            )

    def declared_options(self) -> dict[str, Option]:
        """What program and mapping declare of the options that :attr:`options` may hold."""
        return declared_by("program", self.program, NAMES) | declared_by(
            "mapping", self.mapping, NAMES
        )

    def option_values(self) -> dict[str, Any]:
        """All options of program and mapping, defaults included."""
        return {
            name: self.options.get(name, option.default)
            for name, option in self.declared_options().items()
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the target's classes; empty for real-valued targets."""
        return self.output_names if has_labels(self.target) else ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the target's classes, or of its real-valued outputs."""
        target = self.target
        return (target if isinstance(target, Target) else TARGETS[target]).classes

    def source_options(self) -> dict[str, Any]:
        """The options for :func:`~mrviz.load_source` that were chosen."""
        chosen = {name: getattr(self, name) for name in SOURCE_OPTIONS}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def source_key(self) -> tuple[Any, ...]:
        """What decides which source is loaded: the same key, the same source."""
        options = tuple(self.source_options().items())
        return self.source, options, self.device, self.seed

    def program_options(self) -> dict[str, Any]:
        """The options for :func:`~mrviz.reprogram` that were chosen."""
        options: dict[str, Any] = {}
        if isinstance(self.program, str):
            options[PROGRAMS[self.program].capacity or "capacity"] = self.capacity
        options |= {"image_size": self.image_size, **self.options}
        return {name: value for name, value in options.items() if value is not None}

    def load_source(
        self, progress: ProgressCallback | bool | None = None, cancel: CancelFlag | None = None
    ) -> SourceModel:
        """Loads or trains the source, on the device chosen."""
        device = as_device(self.device, torch.device("cpu"))
        if isinstance(self.source, SourceModel):
            if self.source_options():
                raise InputError(
                    f"{', '.join(self.source_options())} apply to sources chosen by name only"
                )
            if self.device is None or self.source.device == device:
                return self.source
            return copy.deepcopy(self.source).to(device)
        source = load_source(
            self.source, seed=self.seed, progress=progress, cancel=cancel, **self.source_options()
        )
        return source.to(device)

    def load_target(self) -> Target:
        """Loads the target with ``n`` training samples."""
        if not isinstance(self.target, Target):
            fewest = TARGETS[self.target].fewest_train
            if self.n < fewest:
                raise InputError(
                    f"n must be at least {fewest}, one sample for each class of "
                    f"{self.target}, got {self.n}"
                )
            return load_target(self.target, n_train=self.n, seed=self.seed)
        if len(self.target.x_train) < self.n:
            raise InputError(
                f"n={self.n}, but target {self.target.name!r} has only "
                f"{len(self.target.x_train)} training samples"
            )
        return self.target

    def build(self, source: SourceModel, target: Target) -> ReprogrammedModel:
        """The reprogrammed model of a loaded source and target; a program of yours is copied."""
        named = isinstance(self.program, str)
        model = reprogram(
            source,
            target,
            program=self.program if named else copy.deepcopy(self.program),
            mapping=self.mapping,
            seed=self.seed,
            **self.program_options(),
        )
        if not named and self.capacity is not None:
            model.capacity = self.capacity
        return model

    def code(self) -> str:
        """The lines of Python that reproduce the spectrum and the conditions."""
        device = {} if self.device is None else {"device": self.device}
        kernel = {"reduce": self.reduce, **device}
        precision = "" if self.dtype == "float32" else f", dtype=torch.{self.dtype}"
        lines = ["import mrviz"] if not precision else ["import torch", "", "import mrviz"]
        lines.append("")
        if isinstance(self.source, str):
            options = {"seed": self.seed, **self.source_options()}
            lines.append(f"source = mrviz.load_source({_call(self.source, **options)})")
        else:
            lines.append(f"# source: your own SourceModel {self.source.name!r}")
        if isinstance(self.target, str):
            call = _call(self.target, n_train=self.n, seed=self.seed)
            lines.append(f"target = mrviz.load_target({call})")
        else:
            lines.append(f"# target: your own Target {self.target.name!r}")
        options = {"mapping": self.mapping, "seed": self.seed}
        if isinstance(self.program, str):
            program = repr(self.program)
            options |= self.program_options()
        else:
            program = "program"
            options |= self.options
            lines.append(f"# program: your own {type(self.program).__name__}")
        lines.append(
            f"model = mrviz.reprogram(source, target, program={program}, {_call(**options)})"
        )
        if program == "program" and self.capacity is not None:
            lines.append(f"model.capacity = {self.capacity}")
        lines += [
            f"x = target.x_train[:{self.n}]",
            f"gram = mrviz.ntk_gram(model, x, {_call(**kernel)}{precision})",
            "print(mrviz.spectrum(gram))",
            "print(mrviz.transfer_conditions(model, target, gram=gram"
            + (f", {_call(**device)}" if device else "")
            + f"{precision}))",
        ]
        return "\n".join(lines) + "\n"

    def label(self) -> str:
        """A short name for legends."""
        source = self.source
        spec = source_spec(source) if isinstance(source, str) else None
        parts = [source.name if isinstance(source, SourceModel) else source_spec(source).label]
        if self.depth is not None:
            parts[0] += f" depth {self.depth}"
        if self.weights == "random" or (spec and not spec.pretrained and not self.trained_on):
            parts[0] += " (random)"
        program = self.program
        parts.append(PROGRAMS[program].label if isinstance(program, str) else "own program")
        if self.capacity is not None:
            parts[1] += f" {self.capacity}"
        if self.options:
            parts.append(", ".join(f"{name}={value}" for name, value in self.options.items()))
        if self.reduce != "full":
            parts.append(str(self.reduce))
        return " · ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The choices as plain values; objects by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for key in ("source", "target"):
            if not isinstance(values[key], str):
                values[key] = values[key].name
        if not isinstance(values["program"], str):
            values["program"] = type(values["program"]).__name__
        return {**values, "options": dict(self.options)}


NAMES = tuple(f.name for f in fields(Experiment))
"""Names of the choices."""


FOLLOWING = ("source", "target", "n", "program", "mapping")
"""Choices that go to what fits the others, where their default does not."""


def default_of(choice: str) -> str:
    """What is chosen where nothing is given, to follow ``HELP``; empty where there is nothing.

    Example:
        >>> default_of("source"), default_of("seed"), default_of("depth")
        (' (default: efficientnet-lite0, or what fits the rest)', ' (default: 0)', '')
    """
    value = getattr(Experiment, choice)
    if value is None:
        return ""
    return f" (default: {value}{', or what fits the rest' if choice in FOLLOWING else ''})"


def _call(*args: Any, **kwargs: Any) -> str:
    return ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
