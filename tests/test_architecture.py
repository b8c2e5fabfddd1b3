"""The house rules a reader relies on: data flows one way, imports stay light, files small."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mrviz"

# A room may import itself, rooms beside it and rooms above it in this list, never one below.
LAYERS = (
    ("errors",),
    ("_checks", "_progress", "_cache", "_memory", "_records", "_words"),
    ("sources", "targets"),
    ("programs",),
    ("ntk",),
    ("spectrum",),
    ("theory",),
    ("pairing",),
    ("experiment",),
    ("workbench",),
    ("study", "tuning"),
    ("paper",),
    ("figures",),
    ("widgets",),
    ("classroom",),
    ("cli", "lab", "doctor"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LIGHT = (
    *("plotly", "ipywidgets", "anywidget", "IPython", "matplotlib", "torchvision"),
    *("sklearn", "mlxtend", "pandas", "tqdm", "safetensors", "optuna"),
)
MAX_LINES = 400
LOCAL_PATH = re.compile(rb"(?<![\w.~/-])/(work|root)/")

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of mrviz in a file, those inside functions included."""
    package = ("mrviz", *module.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names] if len(base) == 1 else [base]
        else:
            continue
        for name in names:
            if name[0] == "mrviz":
                yield node.lineno, name[1] if len(name) > 1 else "mrviz"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_data_flows_one_way(module: Path) -> None:
    room = room_of(module)
    assert room in LEVEL, (
        f"mrviz/{room} has no place yet: add it to LAYERS in {Path(__file__).name}"
    )
    for line, other in imported_rooms(module):
        where = f"mrviz/{module.relative_to(PACKAGE)}:{line}"
        if other not in LEVEL:
            # The package itself, or a name it re-exports, which may come from any room.
            assert LEVEL[room] >= LEVEL["widgets"], (
                f"{where} imports from mrviz itself: name the room"
            )
            continue
        assert LEVEL[other] <= LEVEL[room], f"{where}: {room} must not import {other}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_say_what_lives_there_and_stay_small(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert len(text.splitlines()) <= MAX_LINES


def test_importing_mrviz_loads_only_what_the_core_needs() -> None:
    # Measured against torch, which brings tqdm along where it is installed.
    code = f"""if True:
        import sys, torch
        before = set(sys.modules)
        import mrviz
        print(*(name for name in {LIGHT!r} if name in sys.modules and name not in before))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_file_names_a_path_of_one_machine() -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, capture_output=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in filter(None, done.stdout.decode().split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            found = LOCAL_PATH.search(content)
            assert found is None, f"{name} names a local path: {found}"
