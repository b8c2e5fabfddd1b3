"""``mrviz study paper``: the paper's claims, run, answered and drawn."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from mrviz.errors import InputError, MissingDataError
from mrviz.paper import study
from mrviz.paper.report import as_markdown, as_text
from mrviz.paper.settings import settings_of

FOLDERS = {"default": "paper", "quick": "paper-quick", "full": "paper-full"}
"""Where results go where no folder is named."""


def add_to(parts: Any) -> None:
    """Adds ``paper`` to the commands of ``mrviz study``."""
    text = "the paper's claims as questions: run, answered with intervals, drawn"
    paper: argparse.ArgumentParser = parts.add_parser("paper", help=text, description=text)
    size = paper.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small runs, a few minutes")
    size.add_argument("--full", action="store_true", help="large runs, for a GPU")
    paper.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="where the tables are; the same command goes on where it was stopped (default: paper, "
        "paper-quick or paper-full; with --report alone the results that come with mrviz)",
    )
    paper.add_argument(
        "--tables", nargs="+", metavar="TABLE", help=f"run only these of {', '.join(study.TABLES)}"
    )
    paper.add_argument("--device", default="cpu", help="where to compute (%(default)s)")
    paper.add_argument("--report", action="store_true", help="no runs: answer from stored tables")
    paper.add_argument("--json", action="store_true", help="print the answers as JSON")
    paper.add_argument("--markdown", action="store_true", help="print the answers as Markdown")
    paper.add_argument("--html", type=Path, metavar="FILE", help="write a page with all figures")
    paper.add_argument("--pictures", type=Path, metavar="FOLDER", help="write figures as PNG")
    paper.set_defaults(run=_paper)


def _paper(args: argparse.Namespace) -> int:
    size = "quick" if args.quick else "full" if args.full else "default"
    if args.report and (args.tables or args.device != "cpu"):
        raise InputError("--report runs nothing: leave --tables and --device out")
    if args.html or args.pictures:
        _need_plotly()
    if args.folder is None:
        stored = args.report and size == "default"
        args.folder = study.STORED if stored else Path(FOLDERS[size])
    if not args.report:
        try:
            study.run(
                args.folder,
                size,
                tables=args.tables,
                device=args.device,
                command=_command(args),
                report=lambda line: print(line, file=sys.stderr, flush=True),
            )
        except KeyboardInterrupt:
            print(
                f"\nmrviz: stopped. All finished rows are kept in {args.folder}. To go on:\n  "
                f"{_command(args)}",
                file=sys.stderr,
            )
            return 130
    about, tables = study.about(args.folder), study.load(args.folder)
    found = study.answers(tables)
    if args.json:
        answers = [answer.to_dict() for answer in found]
        print(json.dumps({"about": about, "answers": answers}))
    else:
        print((as_markdown if args.markdown else as_text)(found, about))
    left = study.missing(args.folder, settings_of(about["size"]))
    if left:
        print(
            "mrviz: not finished: " + ", ".join(f"{n} tasks of {name}" for name, n in left.items()),
            file=sys.stderr,
        )
    if args.html or args.pictures:
        _draw(args, tables)
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command that makes, or goes on with, the runs."""
    words = ["mrviz", "study", "paper"]
    words += ["--quick"] if args.quick else ["--full"] if args.full else []
    if str(args.folder) not in FOLDERS.values():
        words += ["--folder", str(args.folder)]
    words += ["--tables", *args.tables] if args.tables else []
    words += ["--device", args.device] if args.device != "cpu" else []
    return shlex.join(words)


def _need_plotly() -> None:
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise MissingDataError(
            '--html and --pictures need plotly: pip install "mrviz[lab]"'
        ) from None


def _draw(args: argparse.Namespace, tables: study.Tables) -> None:
    """A page with all figures, and each as a picture."""
    from mrviz.figures import CONFIG
    from mrviz.figures.paper import paper_figures

    figures = paper_figures(tables)
    try:
        if args.html:
            titles = {q.number: q.title for q in study.QUESTIONS}
            parts = [
                f"<h2>{number}. {titles[number]}</h2>\n"
                + figure.to_html(full_html=False, include_plotlyjs=k == 0, config=CONFIG)
                for k, (number, figure) in enumerate(figures.items())
            ]
            head = "<!doctype html>\n<html>\n<head><meta charset='utf-8'><title>The paper</title>"
            page = "\n".join([f"{head}</head>", "<body>", *parts, "</body>", "</html>", ""])
            args.html.write_text(page, encoding="utf-8")
            print(f"written: {args.html}", file=sys.stderr)
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            for number, figure in figures.items():
                path = args.pictures / f"paper-{number}.png"
                white = {"paper_bgcolor": "white", "plot_bgcolor": "white", "width": 1000}
                path.write_bytes(figure.update_layout(white).to_image("png", scale=1.5))
                print(f"written: {path}", file=sys.stderr)
    except OSError as error:
        raise InputError(f"the figures cannot be written: {error}") from None
    except RuntimeError as error:  # no Chrome or Chromium
        raise MissingDataError(f"--pictures: {str(error).strip()}") from None
