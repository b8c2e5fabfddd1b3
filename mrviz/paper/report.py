"""The answers as text: for a terminal, and as the generated part of docs/paper.md."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mrviz._words import counted
from mrviz.paper.answer import VERDICTS, Answer
from mrviz.paper.study import QUESTIONS

WIDTH = 96
INDENT = " " * 7


def made(about: Mapping[str, Any]) -> str:
    """How results were made, in one sentence."""
    machine, versions = about["machine"], about["versions"]
    minutes = sum(about["minutes"].values())
    return (
        f"Size {about['size']!r}, settings {about['mark']}: {about['command'] or 'mrviz'}, "
        f"{minutes:.0f} minutes with {counted(machine['threads'], 'thread')} on "
        f"{machine['processor']} ({machine['device']}); "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; {about['begun']} to {about['latest']}."
    )


def as_text(answers: Sequence[Answer], about: Mapping[str, Any]) -> str:
    """Questions and answers for a terminal."""
    lines = [textwrap.fill(made(about), WIDTH)]
    for number, title, members in _by_question(answers):
        lines += ["", f"{number}. {title}"]
        for answer in members:
            head = f"{answer.question:5}{answer.verdict.upper():12} {answer.numbers()}"
            lines += ["", f"  {head}, {counted(answer.runs, 'run')}"]
            lines += [
                textwrap.fill(part, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
                for part in (answer.claim, answer.text)
            ]
    return "\n".join(lines)


def as_markdown(answers: Sequence[Answer], about: Mapping[str, Any]) -> str:
    """A table for each question, and how the results were made."""
    counts = {v: sum(answer.verdict == v for answer in answers) for v in VERDICTS}
    lines = [
        made(about),
        "",
        f"Of {counted(len(answers), 'claim')}: "
        + ", ".join(f"{count} {name}" for name, count in counts.items())
        + ".",
    ]
    for number, title, members in _by_question(answers):
        lines += ["", f"### {number}. {title}", "", as_table(members)]
    return "\n".join(lines)


def as_table(answers: Sequence[Answer]) -> str:
    """Answers as a table of Markdown, and what was measured for each below it."""
    lines = ["| | claim | verdict | statistic [95 % interval] | runs |", "|---|---|---|---|---|"]
    for answer in answers:
        cells = (
            *(answer.question, answer.claim, f"**{answer.verdict}**"),
            *(answer.numbers(), f"{answer.runs:,}"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {a.question}: {a.text}" for a in answers)])


def _by_question(answers: Sequence[Answer]) -> list[tuple[int, str, list[Answer]]]:
    """Number, title and answers of each question that has some."""
    found = []
    for question in QUESTIONS:
        members = [a for a in answers if a.question.startswith(str(question.number))]
        if members:
            found.append((question.number, question.title, members))
    return found
