"""The controls: widgets for every choice of an experiment, and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import local
from typing import Any

import ipywidgets as w
from torch import nn

from mrviz.experiment import GEOMETRY, NAMES, Experiment
from mrviz.pairing import SHAPES, fitting, has_labels, kind_of_source, suits
from mrviz.programs import MAPPINGS, PROGRAMS, ProgramSpec
from mrviz.programs.chosen import declared_by
from mrviz.sources import SourceModel, source_spec
from mrviz.targets import TARGETS, Target
from mrviz.widgets.inputs import NONE, make_inputs, programs_on
from mrviz.widgets.options import OptionControls

SIZES = (4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224)

NAMED: dict[str, Mapping[str, Any]] = {
    "target": TARGETS,
    "program": PROGRAMS,
    "mapping": MAPPINGS,
}
"""What the names of some choices stand for."""


class Controls:
    """Widgets for the fields of an :class:`~mrviz.experiment.Experiment`.

    Args:
        experiment: what they show at first; objects of one's own become further choices.
        on_change: called after every change by the user, with the name of the field.
    """

    def __init__(self, experiment: Experiment, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._own: dict[str, list[tuple[str, Any]]] = {"target": [], "program": []}
        self._quiet = local()  # a silent change in one thread must not hide the user's in another
        self.widgets = make_inputs()
        self.options = OptionControls(self._option_changed)
        self._owners: dict[str, Any] = {}
        self.box = self._arrange()
        self.set(experiment)
        for name, widget in self.widgets.items():
            widget.observe(lambda change, name=name: self._changed(name, change["old"]), "value")

    @property
    def experiment(self) -> Experiment:
        """The experiment that the controls show."""
        value: dict[str, Any] = {
            name: None if widget.value == NONE else widget.value
            for name, widget in self.widgets.items()
        }
        chosen: dict[str, Any] = {
            key: value[key]
            for key in ("source", "target", "program", "mapping", "reduce", "dtype", "device")
        }
        for key in ("depth", "groups", "width", "input_size"):
            chosen[key] = value[key] if self._applies(key) else None
        if "weights" in self._source_options():
            chosen["weights"] = value["weights"]
        elif "trained_on" in self._source_options():
            chosen["trained_on"] = value["weights"]
        chosen["image_size"] = value["image_size"] if self._has_image_size() else None
        chosen["capacity"] = None if self.widgets["capacity"].disabled else value["capacity"]
        options = self.options.values
        return Experiment(n=value["n"], seed=value["seed"], options=options, **chosen)

    def set(self, experiment: Experiment) -> None:
        """Shows an experiment without calling ``on_change``."""
        with self._silence():
            self._offer("source", experiment.source)
            self._refresh_kind()
            for key in ("target", "program"):
                self._offer(key, getattr(experiment, key))
            self._refresh_source()
            for key in ("depth", "groups", "width", "input_size"):
                value = getattr(experiment, key)
                if value is not None:
                    self._set_slider(key, value)
            self._show_width()
            weights = experiment.trained_on if self._trains() else experiment.weights
            if weights is not None:
                self._offer("weights", weights)
            self._refresh_target()
            self._set_slider("n", experiment.n)
            for key in ("image_size", "mapping", "reduce", "dtype", "device"):
                self._offer(key, getattr(experiment, key))
            self.widgets["seed"].value = experiment.seed
            self._refresh_options(experiment.options)
            self._await_capacity()
            if experiment.capacity is not None:
                self.widgets["capacity"].disabled = False
                self._set_slider("capacity", experiment.capacity)

    def show_capacity(self, label: str | None, span: tuple[int, int] | None, value: Any) -> None:
        """Sets meaning, range and value of the capacity slider once they are known."""
        slider = self.widgets["capacity"]
        with self._silence():
            if span is None or value is None:
                slider.disabled = True
                slider.description = "Capacity: none for this program"
                return
            slider.min, slider.max = min(span[0], slider.max), max(span[1], slider.min)
            slider.value = value
            slider.min, slider.max = span
            slider.description = f"Capacity: {label}"
            slider.disabled = False

    def close(self) -> None:
        """Stops listening and closes the widgets."""
        for widget in self.widgets.values():
            widget.unobserve_all()
        self.options.close()
        close_tree(self.box)

    def _changed(self, name: str, old: Any) -> None:
        if getattr(self._quiet, "depth", 0):
            return
        with self._silence():
            if name in ("source", "target"):
                self._follow(name, old)
            if name == "source":
                self._refresh_source()
            if name in ("source", "depth"):
                self._show_width()
            if name in ("source", "target", "input_size", "program"):
                self._refresh_target()
            self._refresh_options()
            if name in GEOMETRY:
                self._await_capacity()
        self._on_change(name)

    def _follow(self, name: str, old: Any) -> None:
        """Changes what does not fit the source or target that was chosen; all targets suit it."""
        value = {key: self.widgets[key].value for key in ("source", "target", "program", "mapping")}
        now = {**value, name: old, "options": self.options.values}
        found = fitting(now, {name: value[name]})
        self._refresh_kind()
        for key, chosen in found.items():
            self._offer(key, chosen)

    def _option_changed(self, option: str) -> None:
        if getattr(self._quiet, "depth", 0):
            return
        if option in declared_by("program", self.widgets["program"].value, NAMES):
            with self._silence():
                self._await_capacity()
        self._on_change("options")

    def _refresh_options(self, values: Mapping[str, Any] | None = None) -> None:
        """Options of the chosen program and mapping; another one starts at its defaults."""
        owners = {owner: self.widgets[owner].value for owner in ("program", "mapping")}
        known = {owner: declared_by(owner, name, NAMES) for owner, name in owners.items()}
        if values is None:
            same = [known[owner] for owner in owners if self._owners.get(owner) == owners[owner]]
            values = {n: v for n, v in self.options.values.items() if any(n in o for o in same)}
        self._owners = owners
        self.options.show(known["program"] | known["mapping"], values)

    def _await_capacity(self) -> None:
        """No capacity until the worker says which there are: the largest is used meanwhile."""
        self.widgets["capacity"].disabled = True

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self._quiet.depth = getattr(self._quiet, "depth", 0) + 1
        try:
            yield
        finally:
            self._quiet.depth -= 1

    def _arrange(self) -> w.Box:
        groups = {
            "Source": ("source", "weights", "depth", "groups", "width", "input_size"),
            "Target": ("target", "n"),
            "Program": ("program", "capacity", "image_size", "mapping"),
            "Kernel": ("reduce", "dtype", "device", "seed"),
        }
        boxes = []
        for heading, names in groups.items():
            title = w.HTML(heading)
            title.add_class("mrviz-heading")
            box = w.VBox([title, *(self.widgets[name] for name in names)])
            box.add_class("mrviz-group")
            boxes.append(box)
            if heading == "Program":
                boxes.append(self.options.box)
        outer = w.VBox(boxes)
        outer.add_class("mrviz-controls")
        for name, widget in self.widgets.items():
            widget.add_class(f"mrviz-control-{name}")
        return outer

    def _source_options(self) -> tuple[str, ...]:
        source = self.widgets["source"].value
        return source_spec(source).options if isinstance(source, str) else ()

    def _applies(self, option: str) -> bool:
        linear = self.widgets["source"].value == "dnn" and self.widgets["depth"].value == 1
        return option in self._source_options() and not (linear and option == "width")

    def _show_width(self) -> None:
        """A DNN of depth 1 is linear and has no width."""
        self.widgets["width"].layout.display = None if self._applies("width") else "none"

    def _trains(self) -> bool:
        return "trained_on" in self._source_options()

    def _program(self) -> ProgramSpec | None:
        """The chosen program, where it is one chosen by name."""
        program = self.widgets["program"].value
        return PROGRAMS[program] if isinstance(program, str) else None

    def _has_image_size(self) -> bool:
        program = self._program()
        return program is not None and "image_size" in program.options

    def _refresh_kind(self) -> None:
        """Targets and programs for what the source takes; what is chosen stays where it can."""
        source = self.widgets["source"].value
        kind = kind_of_source(source)
        named = {
            "target": [(s.label, n) for n, s in TARGETS.items() if suits(source, n)],
            "program": [
                (s.label, n) for n, s in PROGRAMS.items() if kind == "other" or s.fits(SHAPES[kind])
            ],
        }
        for name, offered in named.items():
            control = self.widgets[name]
            known = [value for _, value in offered]
            offered += [
                (label, value)
                for label, value in self._own[name]
                if value not in known and (name == "program" or suits(source, value))
            ]
            if list(control.options) != offered:
                kept = control.value
                control.options = offered
                values = [value for _, value in offered]
                control.value = kept if kept in values else values[0]
        self.widgets["input_size"].description = (
            "Source input length" if kind == "series" else "Source input size (pixels)"
        )

    def _refresh_source(self) -> None:
        """Options, ranges and defaults of the chosen source."""
        source = self.widgets["source"].value
        options = self._source_options()
        for key in ("depth", "groups", "width", "input_size"):
            self.widgets[key].layout.display = None if key in options else "none"
            if isinstance(source, str) and key in options:
                span = source_spec(source).ranges[key]
                low = max(span.low, 8) if key == "input_size" else span.low
                self.widgets[key].min, self.widgets[key].max = 0, max(span.high, low)
                self._set_slider(key, span.default)
                self.widgets[key].min = low
                self.widgets[key].tooltip = span.help
        weights = self.widgets["weights"]
        weights.layout.display = None if isinstance(source, str) else "none"
        if self._trains():
            trained = [n for n in source_spec(source).choices["trained_on"] if n is not None]
            weights.options = [
                ("random", NONE),
                *((f"trained on {TARGETS[name].label}", name) for name in trained),
            ]
        elif isinstance(source, str):
            weights.options = [(c, c) for c in source_spec(source).choices["weights"]]
        weights.value = weights.options[0][1]

    def _refresh_target(self) -> None:
        """Mappings, outputs for the kernel, and the image sizes that fit into the source."""
        target, source = self.widgets["target"].value, self.widgets["source"].value
        if isinstance(target, Target):
            shape, classes, available = target.shape, target.classes, len(target.x_train)
            fewest = min(len(classes), available) if target.is_classification else 1
        else:
            spec = TARGETS[target]
            shape, classes, available = spec.shape, spec.classes, spec.most_train
            fewest = spec.fewest_train
        n = self.widgets["n"]
        most = min(max(256, n.value), available)
        n.min, n.max = min(n.min, fewest), max(n.max, most)
        n.min, n.max = fewest, most
        labels, mapping = has_labels(target), self.widgets["mapping"]
        kept = mapping.value
        mapping.options = [
            (s.label, name)
            for name, s in MAPPINGS.items()
            if labels or not s.labelled or name == kept
        ]
        mapping.value = kept
        one, several = ("class", "classes") if labels else ("output", "outputs")
        reduce = self.widgets["reduce"]
        kept = reduce.value
        reduce.options = [
            (f"full: every sample and {one}", "full"),
            (f"trace: mean over {several}", "trace"),
            ("sum: pseudo-NTK", "sum"),
            *((f"{one} {name} alone", k) for k, name in enumerate(classes)),
        ]
        reduce.value = kept if kept in [value for _, value in reduce.options] else "full"
        self._offer_programs(shape)
        control = self.widgets["image_size"]
        sized = self._has_image_size()
        control.layout.display = None if sized else "none"
        side = (
            source.input_shape[-1]
            if isinstance(source, SourceModel)
            else self.widgets["input_size"].value
        )
        own, program = shape[-1], self._program()
        room = side - 1 if program is None or program.framed else side
        named = {s: f"{s} × {s}" if len(shape) == 3 else f"{s}" for s in (own, *SIZES)}
        sizes = [(named[size], size) for size in SIZES if size <= room]
        fits = [(f"own size, {named[own]}", NONE)] if own <= room or not sized else []
        kept = control.value if sized else NONE
        control.options = [*fits, *sizes] or [("own size", NONE)]
        values = [value for _, value in control.options]
        largest = max((size for _, size in sizes if 4 * size <= 3 * side), default=values[0])
        control.value = kept if kept in values else NONE if fits else largest

    def _offer_programs(self, target_shape: tuple[int, ...]) -> None:
        """Programs that work on such inputs, those of one's own, and the one chosen."""
        control = self.widgets["program"]
        chosen = control.value
        fitting = programs_on(target_shape)
        values = [value for _, value in fitting]
        kept = [
            (label, value)
            for label, value in control.options
            if value not in values and (value not in PROGRAMS or value == chosen)
        ]
        if list(control.options) != fitting + kept:
            control.options = fitting + kept
            control.value = chosen

    def _offer(self, name: str, value: Any) -> None:
        """Selects a value in a dropdown, which learns it if it is new."""
        control = self.widgets[name]
        value = NONE if value is None else value
        if value not in [known for _, known in control.options]:
            spec = NAMED.get(name, {}).get(value) if isinstance(value, str) else None
            label = getattr(value, "name", None) if spec is None else spec.label
            label = label or (type(value).__name__ if isinstance(value, nn.Module) else str(value))
            control.options = [*control.options, (label, value)]
            if name in self._own:
                self._own[name].append((label, value))
        control.value = value

    def _set_slider(self, name: str, value: int) -> None:
        slider = self.widgets[name]
        slider.min, slider.max = min(slider.min, value), max(slider.max, value)
        slider.value = value


def close_tree(widget: w.Widget) -> None:
    """Closes a widget and everything inside it; ``Widget.close_all`` would close every widget."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in ("layout", "style"):
        if isinstance(model := getattr(widget, part, None), w.Widget):
            model.close()
    widget.close()
