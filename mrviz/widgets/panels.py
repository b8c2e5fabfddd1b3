"""HTML of the panels beside the figure: statistics, conditions, messages; pure functions."""

from __future__ import annotations

import traceback
from html import escape

from mrviz.errors import MrvizError
from mrviz.theory import ICONS, Condition, Conditions
from mrviz.workbench import Result

ASK = {
    "T7": "Open the learning curve above to decide it.",
    "T8": "Open the source above to decide it, where it has data of its own.",
    "T9": "Open the source above to decide it, where it has data of its own.",
    "T10": "Open the source above to decide it, where it has data of its own.",
    "T12": "Open the learning curve above and train to decide it.",
}
"""Views that measure what a condition lacks."""


def statistics_html(result: Result, *, dim: bool = False) -> str:
    """Tiles with the numbers of a spectrum; unresolved ones are said to be unresolved."""
    spec = result.spectrum
    smallest = f"{spec.smallest:.3g}" if spec.full_rank else f"&lt; {spec.floor:.2g}"
    tiles = [
        (f"{spec.rank:,} of {spec.order:,}", "rank (resolved)"),
        (f"{spec.effective_rank:.1f}", "effective rank"),
        (f"{spec.largest:.3g}", "λ<sub>max</sub>"),
        (smallest, "λ<sub>min</sub>" + ("" if spec.full_rank else ", not resolved")),
        (f"{spec.condition_number:.3g}", "condition number"),
        (f"{result.info.n_parameters:,}", "parameters p"),
    ]
    body = "".join(
        f"<div class='mrviz-tile'><b>{value}</b><span>{name}</span></div>" for value, name in tiles
    )
    return f"<div class='mrviz-tiles{' mrviz-dim' if dim else ''}'>{body}</div>"


def conditions_html(conditions: Conditions, *, note: str = "", dim: bool = False) -> str:
    """Table of conditions: status by icon, word and colour, the reason, one plain sentence."""
    rows = "".join(
        f"<tr data-condition='{c.id}' data-status='{c.status}'>"
        f"<td><b>{c.id}</b> {escape(c.name)}</td>"
        f"<td><span class='mrviz-badge mrviz-{c.status}'>{ICONS[c.status]} {c.status}</span></td>"
        f"<td>{escape(c.why)}<div class='mrviz-why'>{escape(_ask(c))}{escape(c.sentence)} "
        f"<i>[{escape(c.source)}]</i></div></td></tr>"
        for c in conditions
    )
    note = f"<div class='mrviz-why'>{escape(note)}</div>" if note else ""
    return (
        f"<div class='{'mrviz-dim' if dim else ''}'>{note}<table class='mrviz-conditions'>"
        "<colgroup><col style='width:22%'><col style='width:124px'><col></colgroup>"
        "<thead><tr><th>condition</th><th>status</th><th>what was found, what it means</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _ask(condition: Condition) -> str:
    """What to open for a condition that was not looked at yet."""
    if condition.status != "undecided" or condition.value is not None or condition.details:
        return ""
    return f"{ASK[condition.id]} " if condition.id in ASK else ""


def formulas_tex(conditions: Conditions) -> str:
    """The formulas of the conditions, for ``ipywidgets.HTMLMath``."""
    return "".join(
        f"<p><b>{c.id}</b> {escape(c.name)}: ${c.formula.replace('<', '&lt;')}$</p>"
        for c in conditions
    )


def error_html(error: Exception) -> str:
    """An error for people: our own say what to do, any other shows its details."""
    if isinstance(error, MrvizError):
        return f"<div class='mrviz-error' role='alert'>✘ {escape(str(error))}</div>"
    details = "".join(traceback.format_exception(error))
    return (
        f"<div class='mrviz-error' role='alert'>✘ {escape(type(error).__name__)}: "
        f"{escape(str(error)[:300])}. This was not foreseen: change a control to go on; "
        "the details help to report it."
        f"<details><summary>Details</summary><pre>{escape(details)}</pre></details></div>"
    )
