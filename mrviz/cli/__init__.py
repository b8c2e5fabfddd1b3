"""The command line: ``mrviz lab | spectrum | conditions | study | autotune | doctor``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mrviz.cli import autotune, study
from mrviz.errors import InputError, MrvizError
from mrviz.experiment import DTYPES, HELP, NAMES, Experiment, default_of
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.programs.chosen import declared_by
from mrviz.sources import SOURCES
from mrviz.targets import TARGETS
from mrviz.theory import ICONS
from mrviz.workbench import Result, Workbench

CHOICES: dict[str, tuple[str, ...]] = {
    "target": tuple(TARGETS),
    "trained_on": tuple(TARGETS),
    "weights": ("pretrained", "random"),
    "mapping": tuple(MAPPINGS),
    "dtype": tuple(DTYPES),
}
NUMBERS = ("depth", "groups", "width", "input_size", "n", "capacity", "image_size", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["lab"]:
        from mrviz import lab

        return _guarded(lambda: lab.main(arguments[1:]))
    args = _parser().parse_args(arguments)
    return _guarded(lambda: args.run(args))


def _guarded(run: Any) -> int:
    try:
        return int(run() or 0)
    except MrvizError as error:
        print(f"mrviz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mrviz: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mrviz",
        description="See model reprogramming through its Neural Tangent Kernel.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("lab", help="open the notebooks in JupyterLab", add_help=False)
    for name, run, text in (
        ("spectrum", _spectrum, "eigenvalue spectrum of the target NTK"),
        ("conditions", _conditions, "transfer conditions"),
    ):
        command = commands.add_parser(
            name, help=text, formatter_class=_Formatter, epilog=_options_there_are()
        )
        _add_choices(command)
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.set_defaults(run=run)
    study.add_to(commands)
    autotune.add_to(commands)
    doctor = commands.add_parser("doctor", help="what is installed, what is missing")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """One option for each field of an experiment; only what is given is among the arguments."""
    for choice in fields(Experiment):
        if choice.name == "options":
            parser.add_argument(
                "--option",
                dest="options",
                action="append",
                default=argparse.SUPPRESS,
                metavar="NAME=VALUE",
                help=f"{HELP[choice.name]}, once for each; see below",
            )
            continue
        parser.add_argument(
            "--" + choice.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            choices=tuple(PROGRAMS) if choice.name == "program" else CHOICES.get(choice.name),
            type=int if choice.name in NUMBERS else str,
            help=HELP[choice.name] + _known(choice.name) + default_of(choice.name),
        )


def _known(choice: str) -> str:
    """The sources there are, and what programs declare about a choice, to follow its help."""
    if choice == "source":
        known = list(SOURCES)
    elif choice == "capacity":
        known = [f"{name}: {s.capacity_label}" for name, s in PROGRAMS.items() if s.capacity]
    elif choice == "image_size":
        known = [name for name, spec in PROGRAMS.items() if choice in spec.options]
    else:
        return ""
    return f" ({', '.join(known)})"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the list of options as it is."""


def _options_there_are() -> str:
    """What programs and mappings declare of their options, as the end of the help."""
    lines = ["options of programs and mappings, such as --option bias=false:"]
    for owner, known in (("program", PROGRAMS), ("mapping", MAPPINGS)):
        for name in known:
            for option in declared_by(owner, name, NAMES).values():
                text = f"{option.help}; {option.values}" if option.help else option.values
                lines.append(f"  {name} {option.name}: {text}")
    return "\n".join(lines)


def _options(given: Sequence[str], program: str, mapping: str) -> dict[str, Any]:
    """Options of the program and the mapping from texts NAME=VALUE."""
    known = declared_by("program", program, NAMES) | declared_by("mapping", mapping, NAMES)
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise InputError(f"--option takes NAME=VALUE, such as bias=false, got {text!r}")
        if name in found:
            raise InputError(f"--option {name} is given more than once: leave one out")
        found[name] = known[name].parsed(value) if name in known else value
    return found


def _run(args: argparse.Namespace) -> Result:
    """Runs what was given; the rest follows from it as in the Explorer."""
    given = {name: value for name, value in vars(args).items() if name in NAMES}
    texts = given.pop("options", ())
    if str(given.get("reduce")).isdigit():
        given["reduce"] = int(given["reduce"])
    chosen = Experiment().changed(**given)
    options = _options(texts, str(chosen.program), chosen.mapping)
    return Workbench().run(Experiment().changed(**given, options=options))


def _spectrum(args: argparse.Namespace) -> None:
    result = _run(args)
    if args.json:
        found = result.to_dict()
        del found["conditions"]
        print(json.dumps(found))
        return
    spec = result.spectrum
    rows = [
        ("experiment", result.experiment.label()),
        ("program", result.description),
        ("samples", f"{result.n} (kernel {result.experiment.reduce}, order {spec.order})"),
        ("parameters p", f"{result.info.n_parameters:,}"),
        ("rank (resolved)", f"{spec.rank} of {spec.order}"),
        ("effective rank", f"{spec.effective_rank:.2f}"),
        ("λ_max", f"{spec.largest:.4g}"),
        ("λ_min", spec.describe_smallest()),
        ("condition number", f"{spec.condition_number:.3g} (over resolved eigenvalues)"),
        ("noise floor", f"{spec.floor:.3g} ({result.info.dtype})"),
        ("trace", f"{spec.trace:.4g}"),
        ("time", f"{result.seconds:.2f} s on {result.info.device}"),
    ]
    _table(rows)
    print("\n    k  eigenvalue    residual energy")
    for k in _spread(spec.order):
        value = float(spec.eigenvalues[k - 1])
        shown = f"{value:<12.4g}" if value > spec.floor else "not resolved"
        print(f"{k:5d}  {shown}  {float(result.energy[k - 1]):.3g}")


def _conditions(args: argparse.Namespace) -> None:
    result = _run(args)
    if args.json:
        found = {"experiment": result.experiment.to_dict(), **result.conditions.to_dict()}
        print(json.dumps(found))
        return
    print(f"{result.experiment.label()}, {result.n} target samples\n")
    width = max(len(c.name) for c in result.conditions)
    for c in result.conditions:
        print(f"{c.id:4}{c.name:{width}}  {ICONS[c.status]} {c.status:11}{c.why}")


def _doctor(args: argparse.Namespace) -> int:
    from mrviz import doctor

    found = doctor.collect()
    print(json.dumps(found, indent=1) if args.json else doctor.report(found))
    return 1 if found["problems"] else 0


def _table(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        print(f"{name:18}{value}")


def _spread(order: int) -> list[int]:
    """About a dozen indices from 1 to ``order``, evenly spread on a log scale."""
    steps = 12
    return sorted({round(order ** (k / (steps - 1))) for k in range(steps)})
