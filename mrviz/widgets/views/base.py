"""What every view of an experiment has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mrviz._progress import ProgressCallback
from mrviz.experiment import Experiment
from mrviz.figures import Curve, Theme
from mrviz.workbench import Result, Workbench


@dataclass(frozen=True)
class Job:
    """What a view gets to do its work in the background.

    Attributes:
        progress: to report steps to.
        cancel: flag that ends the work.
        show: to be called when there is something new to see.
    """

    progress: ProgressCallback
    cancel: Event
    show: Callable[[], None]

    @property
    def report(self) -> dict[str, Any]:
        """``progress`` and ``cancel`` as keyword arguments."""
        return {"progress": self.progress, "cancel": self.cancel}


@dataclass(frozen=True, eq=False)
class Scene:
    """What is to be drawn.

    Attributes:
        result: the present result, perhaps a sketch; ``None`` before the first one.
        pinned: spectra kept for comparison.
        theme: of the page.
    """

    result: Result | None
    pinned: Sequence[Curve]
    theme: Theme


class View:
    """One way of looking at an experiment: what it still needs, and the figure of what is there.

    Work happens in the background; everything else must be quick, and holds for any result.

    Attributes:
        name: for code.
        label: on the button.
        tooltip: of the button.
        controls: widgets of its own, shown while the view is open.
    """

    name: str
    label: str
    tooltip: str

    def __init__(self, bench: Workbench, changed: Callable[[], None]) -> None:
        """Takes what computes, and what to call after a change of the view's own controls."""
        self.bench = bench
        self.changed = changed
        self.controls: tuple[w.Widget, ...] = ()

    def missing(self, result: Result) -> bool:
        """Whether there is work left for an exact result."""
        return False

    def work(self, result: Result, job: Job) -> None:
        """Does the work for an exact result, in the background."""

    def figure(self, scene: Scene) -> go.Figure:
        """The figure of what is there."""
        raise NotImplementedError

    def note(self, result: Result) -> str:
        """One plain sentence under the figure; may be empty."""
        return ""

    def table(self, result: Result) -> str:
        """What is shown as CSV."""
        raise NotImplementedError

    def details(self, result: Result) -> Any:
        """What is shown as an object with ``to_dict``, or a dict of them; ``None`` before."""
        return None

    def code(self, experiment: Experiment) -> str:
        """Lines of Python that reproduce what is shown, after those of the experiment."""
        return ""

    def clicked(self, x: float) -> dict[str, Any]:
        """Choices to make when a point of the figure was clicked."""
        return {}

    def close(self) -> None:
        """Stops listening."""
        for control in self.controls:
            control.unobserve_all()
