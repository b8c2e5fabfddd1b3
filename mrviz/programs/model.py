"""The reprogrammed model f_T = b∘f_S∘a_θ and the one call that builds it."""

from __future__ import annotations

import copy
from collections.abc import Mapping as Options
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mrviz._checks import as_samples
from mrviz._memory import Splitter, moved
from mrviz.errors import InputError
from mrviz.programs.base import Program
from mrviz.programs.mappings import (
    MAPPINGS,
    Identity,
    Mapping,
    MappingData,
    Refreshed,
    as_mapping,
    build_mapping,
)
from mrviz.programs.registry import PROGRAMS, build_program
from mrviz.sources import SourceModel
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Kind, Target, kind_of

if TYPE_CHECKING:
    from mrviz.programs.fit import Fit


class ReprogrammedModel(nn.Module):
    """f_T = b∘f_S∘a_θ: a frozen source with a trainable program in front and a mapping behind.

    Only the program's parameters are trainable, and those of the mapping if it is a
    :class:`~mrviz.programs.mappings.LinearHead`.

    Args:
        source: the frozen source.
        program: a :class:`~mrviz.programs.Program`, or any module from target inputs to source
            inputs that treats samples independently.
        mapping: an output mapping, or an array (C, c_S). One that training refreshes is copied,
            as it belongs to one model.

    Attributes:
        outputs: C.
        head: the mapping as a layer, from source outputs to target outputs.
        card: what was saved with a model that :func:`~mrviz.load` loaded, else ``None``.

    Raises:
        InputError: program and source do not fit together.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> model(torch.rand(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """

    card: dict[str, Any] | None = None

    def __init__(self, source: SourceModel, program: nn.Module, mapping: Mapping | Any) -> None:
        super().__init__()
        if not isinstance(source, SourceModel):
            raise InputError(
                f"source must be a SourceModel, got {type(source).__name__}: wrap your module "
                "as mrviz.SourceModel(module, input_shape)"
            )
        if not isinstance(program, nn.Module):
            raise InputError(f"program must be a module, got {type(program).__name__}")
        if isinstance(program, Program) and program.source_shape != source.input_shape:
            raise InputError(
                f"the program makes inputs of shape {program.source_shape}, but source "
                f"{source.name!r} takes {source.input_shape}"
            )
        self.source = source
        self.program = program.to(source.device, source.dtype)
        mapping = as_mapping(mapping)
        self.head = mapping.layer(source.outputs).to(source.device, source.dtype)
        self.mapping = copy.deepcopy(mapping) if mapping.refreshes else mapping
        self._probed = isinstance(program, Program) and program.closed_form

    @property
    def mapping(self) -> Mapping:
        """The output mapping; one that is refreshed changes ``head`` with it."""
        return self._mapping

    @mapping.setter
    def mapping(self, mapping: Mapping) -> None:
        self._mapping = mapping
        if isinstance(mapping, Refreshed):
            mapping.follow(self.head)

    @property
    def weights(self) -> Tensor:
        """How much each source output counts for each target class now, shape (C, c_S).

        They weigh what ``mapping.acts_on`` says, logits or probabilities.
        """
        weights: Tensor = self.head.weight  # type: ignore[assignment]
        return weights.detach()

    @property
    def b(self) -> Tensor:
        """The mapping matrix b as it is now, shape (C, c_S).

        Raises:
            InputError: the mapping is not linear.
        """
        if not self.mapping.linear:
            raise InputError(
                f"mapping {self.mapping.label!r} is not linear in the source's outputs: there is "
                "no matrix b with f = b f_S(u). Choose a mapping that acts on logits"
            )
        return self.weights

    @property
    def outputs(self) -> int:
        """C, the number of target outputs."""
        return int(self.head.out_features)  # type: ignore[arg-type]

    @property
    def n_parameters(self) -> int:
        """p, the number of parameters that training can move."""
        head = sum(p.numel() for p in self.head.parameters() if p.requires_grad)
        if isinstance(self.program, Program):
            return self.program.n_parameters + head
        return sum(p.numel() for p in self.program.parameters() if p.requires_grad) + head

    @property
    def capacity(self) -> int | None:
        """Capacity of the program, where it has one; can be set."""
        return self.program.capacity if isinstance(self.program, Program) else None

    @capacity.setter
    def capacity(self, value: int) -> None:
        if self.capacity is None:
            raise InputError(f"program {type(self.program).__name__} has no capacity to set")
        self.program.capacity = value  # type: ignore[assignment]

    def with_program(self, program: nn.Module) -> ReprogrammedModel:
        """Another program with the same source and the mapping as it is now, no longer trained."""
        return ReprogrammedModel(
            self.source, program, self.b if self.mapping.linear else self.mapping
        )

    def forward(self, x: Tensor) -> Tensor:
        """Target outputs (n, C) of target inputs x (n, *target_shape)."""
        outputs: Tensor = self.head(self.source(self.programmed(x)))
        return outputs

    def programmed(self, x: Tensor) -> Tensor:
        """Programmed inputs u = a_θ(x), shape (n, *source_shape).

        Raises:
            InputError: the program returned something that the source does not take.
        """
        u = self.program(x)
        if not isinstance(u, Tensor) or u.shape[0] != x.shape[0]:
            got = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
            raise InputError(
                f"program {type(self.program).__name__} returned {got} for a batch of "
                f"{x.shape[0]}; a tensor (batch, {', '.join(map(str, self.source.input_shape))}) "
                "is expected"
            )
        if not u.is_floating_point():
            raise InputError(
                f"program {type(self.program).__name__} returned {u.dtype} values (arg-max, "
                "rounding to integers?), but sources take floating-point inputs"
            )
        return u

    def predict(self, x: Any, batch_size: int = 256) -> Tensor:
        """Target outputs (n, C), float64, without gradients, in eval mode, in batches."""
        x = self.inputs(x)

        def run(start: int, stop: int) -> Tensor:
            return self(x[start:stop]).double()

        with evaluation_mode(self), torch.no_grad():
            return Splitter("the forward pass", batch_size)(run, 0, len(x), torch.cat)

    def inputs(self, x: Any, name: str = "x") -> Tensor:
        """Checked target inputs in the model's dtype and on its device.

        A program without a closed form is probed once, with the first inputs it gets.

        Raises:
            InputError: integer, NaN or infinite values, or another shape than the program takes;
                or a program that is random or does not treat samples independently.
        """
        shape = self.program.target_shape if isinstance(self.program, Program) else None
        samples = as_samples(x, name, shape, self.source.dtype).detach()
        samples = moved(samples, self.source.device)
        if not self._probed:
            self._probe(samples)
            self._probed = True
        return samples

    def save(
        self,
        path: str | PathLike[str],
        *,
        target: Target | None = None,
        metrics: Options[str, Any] | Fit | None = None,
    ) -> Path:
        """Writes program and mapping to a folder that :func:`mrviz.load` reads; no pickle.

        The folder holds ``model.safetensors``, the tensors, and ``card.json``: how to make
        source, program and mapping again, versions, a fingerprint of the source, and a checksum.
        The source's weights are not written: ``load`` builds it again by its name and options,
        or takes it as an argument. A model that is there already is replaced.

        Args:
            path: a folder; made if need be, but not its parents.
            target: the target data set, whose name, shape and classes go into the card.
            metrics: numbers to keep in the card, or the record of the training.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds something else, or something that JSON cannot say.
        """
        from mrviz.programs.saved import save

        return save(self, path, target=target, metrics=metrics)

    def _probe(self, x: Tensor) -> None:
        """Runs the program on two samples together, again, and on the first alone."""
        different = len(x) > 1 and not torch.equal(x[0], x[1])
        pair = x[:2] if different else torch.cat([x[:1], 1 - x[:1]])
        with evaluation_mode(self), torch.no_grad():
            together, again = self.programmed(pair), self.programmed(pair)
            alone = self.programmed(pair[:1])
        name, scale = type(self.program).__name__, float(together.abs().max()) + 1e-30
        if float((together - again).abs().max()) > 1e-3 * scale:
            raise InputError(
                f"program {name} gives other programmed inputs on a second call in eval mode: it "
                "is random, so its tangent kernel would be noise. Remove the randomness"
            )
        if float((together[:1] - alone).abs().max()) > 1e-3 * scale:
            raise InputError(
                f"program {name} gives a sample another programmed input alone than in a batch "
                "(mean or norm over the batch, batch statistics in eval mode?): compute it from "
                "each sample alone, with running statistics where there are any"
            )


def reprogram(
    source: SourceModel,
    target: Target,
    *,
    program: str | nn.Module = "border",
    mapping: str | Mapping | Any = "frequency",
    seed: int = 0,
    **options: Any,
) -> ReprogrammedModel:
    """Builds the reprogrammed model for a source and a target data set.

    Args:
        source: the frozen source.
        target: the target data set; gives the input shape, the number of classes, and the
            training samples on which mappings such as frequency are counted.
        program: a name of :data:`~mrviz.programs.PROGRAMS`, such as "border", "linear" or
            "low_rank", or a module of your own.
        mapping: a name of :data:`~mrviz.programs.MAPPINGS`, such as "frequency", "identity"
            (first C) or "bayesian", a mapping, or an array (C, c_S).
        seed: seed of the program's start values, and of mappings that are drawn at random.
        **options: of the program and the mapping chosen by name: ``width=4`` for a border,
            ``rank=8`` for a low-rank program, ``image_size=32``; ``lam=0.5`` for a Bayesian
            mapping, ``ratio=0.3`` for BLM+, ``m=4`` for one that averages.

    Raises:
        InputError: unknown names, options the program does not have, shapes that do not fit, or
            a program by name between images and series.
    """
    own, of_mapping = _split(program, mapping, options)
    if isinstance(program, str):
        check_kinds(kind_of(source.input_shape), kind_of(target.shape))
        program = build_program(program, source.input_shape, target.shape, seed=seed, **own)
    if isinstance(mapping, str):
        data = MappingData(
            source.outputs,
            target.n_classes,
            target.y_train if target.is_classification else None,
            lambda: ReprogrammedModel(source, program, Identity()).predict(target.x_train),
        )
        mapping = build_mapping(mapping, data, seed=seed, **of_mapping)
    model = ReprogrammedModel(source, program, mapping)
    if model.outputs != target.n_classes:
        raise InputError(
            f"the mapping gives {model.outputs} outputs, but the target has "
            f"{target.n_classes} classes: it needs one row for each class"
        )
    return model


def _split(
    program: Any, mapping: Any, options: Options[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the program and of the mapping, where they are chosen by name.

    Raises:
        InputError: an unknown name, or an option that neither or both of them have.
    """
    for kind, choice, names in (("program", program, PROGRAMS), ("mapping", mapping, MAPPINGS)):
        if isinstance(choice, str) and choice not in names:
            raise InputError(f"{kind} must be one of {', '.join(names)}, got {choice!r}")
    own = PROGRAMS[program].options if isinstance(program, str) else ()
    its = MAPPINGS[mapping].options if isinstance(mapping, str) else ()
    unknown = sorted(set(options) - set(own) - set(its))
    if unknown:
        text = f"options {unknown} apply only to programs chosen by name"
        if isinstance(program, str):
            text = (
                f"program {program!r} has no option {', '.join(unknown)}; its options are "
                f"{', '.join(own)}"
            )
        if isinstance(mapping, str):
            text += f"; those of mapping {mapping!r} are {', '.join(its)}" if its else ""
        raise InputError(text)
    if both := sorted(set(options) & set(own) & set(its)):
        raise InputError(
            f"program {program!r} and mapping {mapping!r} both have an option "
            f"{', '.join(both)}: make one of the two yourself and pass the object"
        )
    return (
        {name: value for name, value in options.items() if name in own},
        {name: value for name, value in options.items() if name in its},
    )


def check_kinds(source: Kind, target: Kind) -> None:
    """Checks that source and target are both of images or both of series.

    Args:
        source: kind of the source's inputs; "other" is not checked, on both sides.
        target: kind of the target's samples.

    Raises:
        InputError: images on one side and series on the other.
    """
    if "other" not in (source, target) and source != target:
        words: dict[Kind, str] = {"image": "images", "series": "series"}
        raise InputError(
            f"the source takes {words[source]}, but the target holds {words[target]}: choose two "
            "of one kind, or pass a program of your own between them, such as "
            "mrviz.programs.Linear(source.input_shape, target.shape)"
        )
