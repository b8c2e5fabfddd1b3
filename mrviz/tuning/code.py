"""The best model of a tuning as lines of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mrviz.tuning.search import train_options

if TYPE_CHECKING:
    from mrviz.tuning.result import Tuning


def lines(tuning: Tuning) -> str:
    """See :meth:`mrviz.Tuning.code`; what is the user's own is named in a comment."""
    chosen, best, settings = tuning.chosen, tuning.best, tuning.settings
    if tuning.model is None or chosen is None or best is None:
        return ""
    source = tuning.model.source
    found = ["import mrviz", ""]
    if source.spec is None:
        found.append(f"# source: your own SourceModel {source.name!r}")
    else:
        options = {key: value for key, value in source.spec.items() if key != "name"}
        found.append(f"source = mrviz.load_source({source.spec['name']!r}, {_given(options)})")
    found.append(f"# target: your Target {settings['target']!r}")
    validation, seed = settings["validation"], settings["seed"]
    found.append(
        f"target = mrviz.tuning.validation_split(target, validation={validation}, seed={seed})"
    )
    words = []
    for kind in ("program", "mapping"):
        if kind in settings["own"]:
            found.append(f"# {kind}: your own {getattr(chosen, kind)}")
        words.append(f"{kind}={kind if kind in settings['own'] else repr(getattr(chosen, kind))}")
    options = {"seed": seed, **chosen.options}
    found.append(f"model = mrviz.reprogram(source, target, {', '.join(words)}, {_given(options)})")
    options = {**train_options(settings), "lr": best.lr, "steps": best.steps}
    found.append(f"fit = mrviz.train(model, target, {_given(options)})")
    return "\n".join(found) + "\n"


def _given(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items() if value is not None)
