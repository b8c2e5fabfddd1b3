"""The views of an experiment, each in a module of its own."""

from __future__ import annotations

from collections.abc import Callable

from mrviz.widgets.views.base import Job, Scene, View
from mrviz.widgets.views.capacity import CapacityView
from mrviz.widgets.views.gram import GramView
from mrviz.widgets.views.learning import LearningView
from mrviz.widgets.views.mapping import MappingView
from mrviz.widgets.views.program import ProgramView
from mrviz.widgets.views.source import SourceView
from mrviz.widgets.views.spectrum import SpectrumView
from mrviz.workbench import Learning, Workbench

__all__ = ["Job", "Scene", "View", "make_views"]


def make_views(bench: Workbench, changed: Callable[[], None]) -> dict[str, View]:
    """All views by name, in the order of their buttons; the first is open at the start.

    Args:
        bench: what computes.
        changed: called after a change of a view's own controls.
    """
    learning = Learning(bench)
    views: tuple[View, ...] = (
        SpectrumView(bench, changed),
        CapacityView(bench, changed, learning),
        LearningView(bench, changed, learning),
        GramView(bench, changed),
        SourceView(bench, changed),
        ProgramView(bench, changed),
        MappingView(bench, changed),
    )
    return {view.name: view for view in views}
