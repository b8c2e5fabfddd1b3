"""One training in progress: what it measures, which parameters it keeps, and its state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz.errors import InputError
from mrviz.programs.fit import Measurement
from mrviz.programs.losses import accuracy, sample_losses
from mrviz.programs.model import ReprogrammedModel
from mrviz.programs.rebuild import mapping_fields, mapping_like
from mrviz.programs.training.spsa import BlackBoxSteps
from mrviz.programs.training.steps import Batches, GradientSteps
from mrviz.targets import Target


class Keeper:
    """Remembers the parameters that the validation split likes best.

    Args:
        keep: one of ``KEEP``.
        patience: measurements in a row without a better one after which to give up.
    """

    def __init__(self, keep: str, patience: int | None) -> None:
        self.keep = keep
        self.patience = patience
        self.best: Measurement | None = None
        self.snapshot: dict[str, Any] | None = None
        self.waited = 0

    @property
    def out_of_patience(self) -> bool:
        """Whether training should stop."""
        return self.patience is not None and self.waited >= self.patience

    def better(self, measured: Measurement) -> bool:
        """Whether a measurement is better than the best so far; ties of accuracy go by loss."""
        if self.keep == "last" or not math.isfinite(measured.val_loss or 0.0):
            return False
        return self.best is None or self._rank(measured) > self._rank(self.best)

    def see(self, measured: Measurement, session: Session) -> None:
        """Takes note of a measurement of the parameters as they are now."""
        if self.better(measured):
            self.best, self.snapshot, self.waited = measured, session.snapshot(), 0
        else:
            self.waited += 1

    def _rank(self, measured: Measurement) -> tuple[float, ...]:
        loss, share = measured.val_loss or 0.0, measured.val_accuracy or 0.0
        return (share, -loss) if self.keep == "val_accuracy" else (-loss,)


class Session:
    """A training between two of its steps.

    Args:
        model: the model.
        target: the target data set.
        settings: checked settings.
        split: says how many samples are differentiated at once.

    Attributes:
        step: steps that are finished.
        history: what was measured so far.
        seconds: time that earlier processes spent.
    """

    def __init__(
        self,
        model: ReprogrammedModel,
        target: Target,
        settings: dict[str, Any],
        split: Splitter,
    ) -> None:
        self.model = model
        self.settings = settings
        self.split = split
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError(f"program {type(model.program).__name__} has no trainable parameters")
        self.refreshes = _refreshes(model, target)
        n, n_test = settings["n"], settings["n_test"]
        parts = [
            (target.x_train[:n], target.y_train[:n]),
            (target.x_test[:n_test], target.y_test[:n_test]),
        ]
        if target.x_val is not None and target.y_val is not None:
            parts.append((target.x_val, target.y_val))
        device = model.source.device
        self.samples, self.held_out, *self.validation = [
            (model.inputs(x), target.targets_of(y).to(device)) for x, y in parts
        ]
        self.labels = target.y_train[:n]
        self.batches = Batches(n, settings["batch_size"], settings["seed"])
        steps = BlackBoxSteps if settings["optimizer"] == "spsa" else GradientSteps
        self.move = steps(model, self.parameters, settings, split)
        self.keeper = Keeper(settings["keep"], settings["patience"])
        self.history: list[Measurement] = []
        self.step = 0
        self.seconds = 0.0

    def measure(self) -> Measurement:
        """Losses and accuracies on all splits, in float64 and without gradients."""
        values: list[Any] = [self.step]
        for x, y in (self.samples, self.held_out, *self.validation):
            outputs = self.model.predict(x)
            values += [
                float(sample_losses(outputs, y, self.settings["loss"]).mean()),
                accuracy(outputs, y),
            ]
        return Measurement(*values)

    def record(self, measured: Measurement) -> None:
        """Takes a measurement of the present parameters into the history."""
        self.history.append(measured)
        self.keeper.see(measured, self)

    def advance(self) -> float | None:
        """The next step; the loss of its batch, or ``None`` where numbers are not finite."""
        if self.refreshes and self.batches.at_start:
            self._refresh()
        rows = self.batches.next()
        x, y = self.samples if rows is None else (self.samples[0][rows], self.samples[1][rows])
        loss = self.move(x, y)
        if loss is not None:
            self.step += 1
        return loss

    def finish(self) -> int:
        """Puts the best parameters back, where they are to be kept; the step they are of."""
        best, snapshot = self.keeper.best, self.keeper.snapshot
        if best is None or snapshot is None:
            return self.step
        self.restore(snapshot)
        return best.step

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything in the model that training changes."""
        found: dict[str, Any] = {
            "parameters": {name: p.detach().clone() for name, p in self.parameters.items()}
        }
        if self.refreshes:
            found["mapping"] = mapping_fields(self.model.mapping)
            state = self.model.head.state_dict()
            found["head"] = {name: value.detach().clone() for name, value in state.items()}
        return found

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Puts a :meth:`snapshot` back into the model."""
        with torch.no_grad():
            for name, value in snapshot["parameters"].items():
                self.parameters[name].copy_(value)
        if self.refreshes:
            self.model.mapping = mapping_like(self.model.mapping, snapshot["mapping"])
            self.model.head.load_state_dict(snapshot["head"])

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, and its record so far."""
        keeper = self.keeper
        return {
            "step": self.step,
            "model": self.snapshot(),
            "steps": self.move.state(),
            "batches": self.batches.state(),
            "limit": self.split.limit,
            "notes": list(self.split.notes),
            "history": [vars(m) for m in self.history],
            "best": None if keeper.best is None else vars(keeper.best),
            "snapshot": keeper.snapshot,
            "waited": keeper.waited,
            "seconds": self.seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state`."""
        self.step = state["step"]
        self.restore(state["model"])
        self.move.load(state["steps"])
        self.batches.load(state["batches"])
        self.split.limit = state["limit"]
        self.split.notes[:] = state["notes"]
        self.history = [Measurement(**values) for values in state["history"]]
        self.keeper.best = None if state["best"] is None else Measurement(**state["best"])
        self.keeper.snapshot = state["snapshot"]
        self.keeper.waited = state["waited"]
        self.seconds = state["seconds"]

    def _refresh(self) -> None:
        """Computes an iterative mapping anew, from the source's present outputs."""
        model, (x, _) = self.model, self.samples

        def run(start: int, stop: int) -> Tensor:
            return model.source(model.programmed(x[start:stop]))

        with torch.no_grad():
            outputs = Splitter("the forward pass", 256)(run, 0, len(x), torch.cat)
            mapping: Any = model.mapping
            fresh = mapping.refresh(outputs, self.labels.to(outputs.device))
            model.mapping = mapping if fresh is None else fresh
            layer = model.mapping.layer(model.source.outputs)
            model.head.load_state_dict(layer.state_dict())


def _refreshes(model: ReprogrammedModel, target: Target) -> bool:
    """Whether the mapping is computed anew in each epoch."""
    wanted = bool(getattr(model.mapping, "refreshes", False))
    if wanted and not target.is_classification:
        raise InputError(
            f"mapping {type(model.mapping).__name__} is computed from class labels, but target "
            f"{target.name!r} has real-valued outputs: use another mapping"
        )
    return wanted
