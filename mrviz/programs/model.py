"""The reprogrammed model f_T = b∘f_S∘a_θ and the one call that builds it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mrviz._checks import as_samples
from mrviz._memory import Splitter, moved
from mrviz.errors import InputError
from mrviz.programs.base import Program
from mrviz.programs.mappings import Frequency, Identity, Mapping, as_mapping
from mrviz.programs.registry import build_program
from mrviz.sources import SourceModel
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Target, kind_of

MAPPINGS = ("frequency", "identity")
"""Mappings that :func:`reprogram` knows by name."""


class ReprogrammedModel(nn.Module):
    """f_T = b∘f_S∘a_θ: a frozen source with a trainable program in front and a mapping behind.

    Only the program's parameters are trainable, and those of the mapping if it is a
    :class:`~mrviz.programs.mappings.LinearHead`.

    Args:
        source: the frozen source.
        program: a :class:`~mrviz.programs.Program`, or any module from target inputs to source
            inputs that treats samples independently.
        mapping: an output mapping, or an array (C, c_S).

    Attributes:
        outputs: C.
        head: the mapping as a layer, from source outputs to target outputs.

    Raises:
        InputError: program and source do not fit together.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> model(torch.rand(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """

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
        self.mapping = as_mapping(mapping)
        self.head = self.mapping.layer(source.outputs).to(source.device, source.dtype)
        self._probed = isinstance(program, Program) and program.closed_form

    @property
    def b(self) -> Tensor:
        """The mapping matrix b as it is now, shape (C, c_S)."""
        return self.head.weight.detach()

    @property
    def outputs(self) -> int:
        """C, the number of target outputs."""
        return self.b.shape[0]

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

    def forward(self, x: Tensor) -> Tensor:
        """Target outputs (n, C) of target inputs x (n, *target_shape)."""
        return self.head(self.source(self.programmed(x)))

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
            training samples on which a frequency mapping is counted.
        program: a name of :data:`~mrviz.programs.PROGRAMS`, such as "border", "linear" or
            "low_rank", or a module of your own.
        mapping: "frequency", "identity" (first C), a mapping, or an array (C, c_S).
        seed: seed of the program's start values.
        **options: passed to the program by name, such as ``width=4`` for a border, ``rank=8``
            for a low-rank program, or ``image_size=32``.

    Raises:
        InputError: unknown names, options the program does not have, shapes that do not fit, or
            a program by name between images and series.
    """
    if isinstance(program, str):
        check_kinds(kind_of(source.input_shape), kind_of(target.shape))
        program = build_program(program, source.input_shape, target.shape, seed=seed, **options)
    elif options:
        raise InputError(f"options {sorted(options)} apply only to programs chosen by name")
    if not isinstance(mapping, str):
        model = ReprogrammedModel(source, program, mapping)
        if model.outputs != target.n_classes:
            raise InputError(
                f"the mapping gives {model.outputs} outputs, but the target has "
                f"{target.n_classes} classes: it needs one row for each class"
            )
        return model
    if mapping == "identity":
        return ReprogrammedModel(source, program, Identity(target.n_classes))
    if mapping != "frequency":
        raise InputError(f"mapping must be one of {', '.join(MAPPINGS)}, got {mapping!r}")
    if not target.is_classification:
        raise InputError(
            "a frequency mapping counts class labels, but this target has real-valued outputs: "
            "use mapping='identity' or a matrix"
        )
    unmapped = ReprogrammedModel(source, program, Identity())
    logits = unmapped.predict(target.x_train)
    return ReprogrammedModel(
        source, program, Frequency.fit(logits, target.y_train, target.n_classes)
    )


def check_kinds(source: str | None, target: str | None) -> None:
    """Checks that source and target are both of images or both of series.

    Args:
        source: kind of the source's inputs, "image" or "series"; ``None`` is not checked.
        target: kind of the target's samples.

    Raises:
        InputError: images on one side and series on the other.
    """
    if source is not None and target is not None and source != target:
        words = {"image": "images", "series": "series"}
        raise InputError(
            f"the source takes {words[source]}, but the target holds {words[target]}: choose two "
            "of one kind, or pass a program of your own between them, such as "
            "mrviz.programs.Linear(source.input_shape, target.shape)"
        )
