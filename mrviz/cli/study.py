"""``mrviz study``: runs studies, shows their rows, and what correlates with the outcome."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrviz._progress import ProgressCallback
from mrviz._words import counted
from mrviz.cli import paper
from mrviz.cli.grid_file import example, read_grid
from mrviz.errors import InputError, MissingDataError
from mrviz.study import Correlations, correlate, load, run
from mrviz.study.grid import EXPERIMENT, SETTINGS, Configuration

CONNECT_SECONDS = 20
"""How long a cluster may take to answer."""

REPORT_SECONDS = 10.0
"""Between two lines of progress, where there is no terminal to draw a bar on."""

RESULTS = ("predicted_accuracy", "test_accuracy", "seconds", "status")
LOSSES = ("predicted_loss", "test_loss")
SIGNS = {"spearman": "ρ", "kendall": "τ"}

Row = Mapping[str, Any]


def add_to(commands: Any) -> None:
    """Adds ``study`` to the commands of the parser."""
    study = commands.add_parser(
        "study", help="many trainings in one resumable file, and what correlates with them"
    )
    parts = study.add_subparsers(required=True, metavar="COMMAND")

    new = _command(parts, "run", _run, "train every combination of a grid that has no row yet")
    new.add_argument("grid", metavar="GRID", help="file with the grid, .json or .toml")
    new.add_argument("path", metavar="PATH", help="the study's file; made where there is none")
    new.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster to use")
    new.add_argument("--retry-failed", action="store_true", help="repeat runs that failed")

    show = _command(parts, "show", _show, "what a study has done so far")
    show.add_argument("path", metavar="PATH", help="the study's file")
    show.add_argument("--grid", help="only the runs of this grid, and how many are left")
    show.add_argument("--json", action="store_true", help="print JSON with all columns")
    show.add_argument("--csv", metavar="FILE", help="write all columns to a CSV file")

    pairs = _command(parts, "correlate", _correlate, "rank correlations of indicators and outcomes")
    pairs.add_argument("path", metavar="PATH", help="the study's file")
    pairs.add_argument(
        "--indicators", nargs="+", required=True, metavar="NAME", help="columns known before"
    )
    pairs.add_argument(
        "--outcomes",
        nargs="+",
        default=["test_accuracy"],
        metavar="NAME",
        help="columns known after (default: test_accuracy)",
    )
    pairs.add_argument(
        "--groups",
        nargs="+",
        metavar="NAME",
        help="columns whose values together name rows that are resampled as one, such as "
        "source depth seed",
    )
    pairs.add_argument("--bootstrap", type=int, default=2000, help="resamples (%(default)s)")
    pairs.add_argument("--seed", type=int, default=0, help="seed of the resampling (%(default)s)")
    pairs.add_argument("--json", action="store_true", help="print JSON instead of tables")
    pairs.add_argument("--html", metavar="FILE", help="write scatter figures of all pairs")

    start = _command(parts, "example", _example, "print a small grid to start from, as TOML")
    start.add_argument("--json", action="store_true", help="print JSON instead of TOML")

    paper.add_to(parts)


def _command(parts: Any, name: str, call: Callable[..., Any], text: str) -> Any:
    parser: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text)
    parser.set_defaults(run=call)
    return parser


def _example(args: argparse.Namespace) -> None:
    print(example("json" if args.json else "toml"), end="")


def _run(args: argparse.Namespace) -> int:
    wanted = read_grid(args.grid)
    before = len(_known(args.path, wanted))
    runs = counted(len(wanted), "run")
    print(f"{runs} in {args.grid}, {before} known in {args.path}", flush=True)
    grid = [configuration.to_dict() for configuration in wanted]
    report = None if sys.stderr.isatty() else _lines()
    options: dict[str, Any] = {"retry_failed": args.retry_failed, "progress": report}
    try:
        with _client(args.dask) as client:
            study = run(grid, args.path, client=client, **options)
    except KeyboardInterrupt:
        kept = _known(args.path, wanted)
        print(
            f"\nmrviz: stopped. {counted(len(kept), 'row')} of {len(wanted)} are kept in "
            f"{args.path}; what was being run is not. To go on:\n  {_again(args)}",
            file=sys.stderr,
        )
        return 130
    print(f"{study.done} done and {study.failed} failed in {study.seconds:.1f} s")
    failed = [row for row in _known(args.path, wanted) if row["status"] == "failed"]
    if failed:
        path = shlex.quote(args.path)
        print(
            f"mrviz: {counted(len(failed), 'run')} of this grid failed, the last with "
            f"{failed[-1]['error']}\n  mrviz study show {path} tells all; --retry-failed repeats "
            "them",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _again(args: argparse.Namespace) -> str:
    """The command that goes on."""
    words = ["mrviz", "study", "run", args.grid, args.path]
    words += ["--dask", args.dask] if args.dask else []
    words += ["--retry-failed"] if args.retry_failed else []
    return shlex.join(words)


def _known(path: str, wanted: Sequence[Configuration]) -> list[dict[str, Any]]:
    """The rows of some runs; none where there is no file yet."""
    keys = {configuration.key for configuration in wanted}
    rows = load(path) if Path(path).is_file() else []
    return [row for row in rows if row["key"] in keys]


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """A client of a cluster; ``None`` without an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise MissingDataError('--dask needs Dask: pip install "mrviz[cluster]"') from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error}): start one with 'dask scheduler' "
            "and pass the address it prints, such as --dask tcp://host:8786"
        ) from None
    with client:
        yield client


def _lines() -> ProgressCallback:
    """Progress as lines, for a file or a pipe."""
    last = time.monotonic()

    def report(done: int, total: int, label: str) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            print(f"{done} of {total}: {label}", file=sys.stderr, flush=True)

    return report


def _show(args: argparse.Namespace) -> None:
    rows, left = load(args.path), None
    if args.grid is not None:
        wanted = read_grid(args.grid)
        rows = _known(args.path, wanted)
        left = len(wanted) - len(rows)
    failed = [row for row in rows if row["status"] == "failed"]
    counts = {"done": len(rows) - len(failed), "failed": len(failed), "left": left}
    if args.csv is not None:
        _write(args.csv, _csv(rows))
    if args.json:
        print(json.dumps(_plain({"path": args.path, **counts, "rows": rows})))
        return
    known = {name: count for name, count in counts.items() if count is not None}
    print(f"{args.path}: " + ", ".join(f"{count} {name}" for name, count in known.items()))
    if not rows:
        return
    chosen = [name for name in (*EXPERIMENT, *SETTINGS) if any(name in row for row in rows)]
    varied = [name for name in chosen if len({row.get(name) for row in rows}) > 1]
    same = [
        f"{name} {rows[0][name]}"
        for name in chosen
        if name not in varied and rows[0][name] is not None
    ]
    print(textwrap.fill("the same in all: " + ", ".join(same), 96, subsequent_indent="  "))
    labels = any(row.get("test_accuracy") is not None for row in rows)
    results = RESULTS if labels else (*LOSSES, *RESULTS)
    columns = [*varied, *(name for name in results if name in rows[0])]
    print()
    _table(columns, [[row[name] for name in columns] for row in rows])
    if failed:
        print("\nfailed")
    for row in failed:
        print(f"  {', '.join(f'{name} {row[name]}' for name in varied) or 'run'}: {row['error']}")


def _correlate(args: argparse.Namespace) -> None:
    if args.html is not None:
        _need_plotly()
    rows = load(args.path)
    options = {name: getattr(args, name) for name in ("groups", "bootstrap", "seed")}
    found = [
        correlate(rows, args.indicators, args.outcomes, method=method, **options)
        for method in SIGNS
    ]
    if args.json:
        tables = {f.method: f.to_dict()["items"] for f in found}
        print(json.dumps({"path": args.path, "rows": len(rows), **options, **tables}))
    else:
        print("\n\n".join(_described(correlations, args) for correlations in found))
    if args.html is not None:
        _write(args.html, _page(rows, found[0], Path(args.path).name))


def _described(found: Correlations, args: argparse.Namespace) -> str:
    of = "rows" if args.groups is None else f"groups of the same {', '.join(args.groups)}"
    head = f"{found.method.capitalize()}, p corrected for {counted(len(found), 'pair')} (Holm)"
    if args.bootstrap:
        head += f"; 95 % intervals from {counted(args.bootstrap, 'resample')} of {of}"
    titles = ["indicator", "outcome", SIGNS[found.method], "95 % interval", "p", "Holm p", "n"]
    values = [
        [
            *(item.indicator, item.outcome, _signed(item.coefficient)),
            *(f"[{_signed(item.low)}, {_signed(item.high)}]" if item.low is not None else None,),
            *(_short(item.p_value), _short(item.p_holm), item.n, item.note or None),
        ]
        for item in found
    ]
    return "\n".join([head, "", *_aligned([*titles, "note"], values)])


def _need_plotly() -> None:
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise MissingDataError('--html needs plotly: pip install "mrviz[lab]"') from None


def _page(rows: Sequence[Row], found: Correlations, name: str) -> str:
    """An HTML page with a figure of each pair; it needs no network."""
    import html

    from mrviz.figures import CONFIG, correlation_figure

    figures = [
        correlation_figure(rows, item.indicator, item.outcome, correlation=item).to_html(
            full_html=False, include_plotlyjs=place == 0, config=CONFIG
        )
        for place, item in enumerate(found)
    ]
    title = html.escape(f"Correlations in {name}")
    head = f"<!doctype html>\n<html>\n<head><meta charset='utf-8'><title>{title}</title></head>"
    return "\n".join([head, "<body>", *figures, "</body>", "</html>", ""])


def _csv(rows: Sequence[Row]) -> str:
    """All columns; lists and tables within a column as JSON."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0] if rows else [])
    for row in rows:
        nested = (json.dumps(v) if isinstance(v, list | dict) else v for v in row.values())
        writer.writerow(nested)
    return text.getvalue()


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror or error}") from None
    print(f"written: {file}", file=sys.stderr)


def _plain(value: Any) -> Any:
    """The same without numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2f}"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    print("\n".join(_aligned(titles, rows)))


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table; columns of numbers to the right, without those that hold nothing."""
    columns = []
    for place, title in enumerate(titles):
        values = [row[place] for row in rows]
        if all(value is None for value in values):
            continue
        cells = [title, *map(_cell, values)]
        width = max(map(len, cells))
        right = all(value is None or _is_number(value) for value in values)
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return not isinstance(value, bool)
