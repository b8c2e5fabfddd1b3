"""Choices of an experiment as attributes, for objects that show one."""

from __future__ import annotations

from typing import Any

from mrviz.experiment import NAMES, Experiment


class Choices:
    """Reads and sets by name what is chosen, options of program and mapping included.

    Subclasses give :attr:`experiment` and :meth:`set`, and keep what is their own in attributes
    that begin with an underscore: any other name is a choice.
    """

    @property
    def experiment(self) -> Experiment:
        """The present choices as one object."""
        raise NotImplementedError

    def set(self, **choices: Any) -> Any:
        """Changes choices by name."""
        raise NotImplementedError

    @property
    def state(self) -> dict[str, Any]:
        """The present choices by name; assign a dict to change several at once."""
        experiment = self.experiment
        return {name: getattr(experiment, name) for name in NAMES}

    @state.setter
    def state(self, choices: dict[str, Any]) -> None:
        self.set(**choices)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and not hasattr(type(self), name):
            values = self.experiment.option_values()
            if name in values:
                return values[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            self.set(**{name: value})

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.experiment.option_values()]


def _choice(name: str) -> property:
    """A property that reads and sets one choice."""
    return property(
        lambda self: getattr(self.experiment, name),
        lambda self, value: self.set(**{name: value}),
        doc=f"The choice {name!r}; can be set.",
    )


for _name in NAMES:
    setattr(Choices, _name, _choice(_name))
