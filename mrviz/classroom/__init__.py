"""Checks of the exercises in the class notebooks: what is wrong, in a plain sentence.

A student runs ``check("04.1", answer, …)`` and sees a :class:`Verdict`. There is one module for
each class notebook; each is imported here, so a file with functions decorated by
:func:`exercise` is all it takes to add exercises. Nothing here grades or stores answers.
"""

from importlib import import_module
from pkgutil import iter_modules

from mrviz.classroom.exercises import EXERCISES, check, exercise
from mrviz.classroom.verdict import Verdict

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["EXERCISES", "Verdict", "check", "exercise"]
