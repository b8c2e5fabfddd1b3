"""Starts JupyterLab on the notebooks: copies them where needed, offline, without dialogs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mrviz.errors import InputError, MissingDataError

NOTEBOOK = "01-explorer.ipynb"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``mrviz lab``; arguments it does not know go on to ``jupyter lab``."""
    parser = argparse.ArgumentParser(
        prog="mrviz lab",
        description="Opens the mrviz notebooks in JupyterLab. They are copied into the folder "
        "'notebooks' where they are not there yet; your own changes are never overwritten.",
        epilog="All other options go on to 'jupyter lab', for example --port=9000.",
        allow_abbrev=False,
    )
    parser.add_argument("--folder", type=Path, help="working folder (default: this one)")
    parser.add_argument("--notebook", default=NOTEBOOK, help="notebook to open (%(default)s)")
    args, extra = parser.parse_known_args(argv)
    return launch(args.folder, notebook=args.notebook, extra=extra)


def launch(
    folder: Path | str | None = None,
    *,
    notebook: str = NOTEBOOK,
    source: Path | None = None,
    extra: Sequence[str] = (),
) -> int:
    """Opens JupyterLab on a notebook and returns when the user stops it.

    Args:
        folder: working folder; default: the current one.
        notebook: name of the notebook to open.
        source: folder the notebooks come from; default: those that came with mrviz.
        extra: further arguments for ``jupyter lab``; they win over the ones set here.

    Raises:
        MissingDataError: JupyterLab or the notebooks are not installed.
        InputError: the working folder cannot be written.
    """
    try:
        from jupyterlab.labapp import LabApp
    except ImportError:
        raise MissingDataError(
            'JupyterLab is not installed: pip install "mrviz[lab]" adds it and all it needs'
        ) from None
    notebooks = prepare(Path.cwd() if folder is None else Path(folder), source)
    os.environ.update(jupyter_environment())
    arguments = jupyter_arguments(notebooks / notebook, extra)
    print(f"Notebooks: {notebooks}")
    if "--no-browser" in arguments:
        print("Open the address below in a browser. Press Ctrl-C twice to stop JupyterLab.")
    else:
        print("JupyterLab opens in your browser. Press Ctrl-C twice here to stop it.")
    server = LabApp.initialize_server(argv=arguments)
    if not server.identity_provider.token_generated:  # otherwise Jupyter prints it itself
        print(f"Address: {server.display_url}", flush=True)
    server.start()
    return 0


def shipped_notebooks() -> Path:
    """Folder of the notebooks that came with mrviz: inside the wheel, or beside a checkout.

    Raises:
        MissingDataError: there is none.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (package / "notebooks").is_dir():
        return package / "notebooks"
    if (checkout / "notebooks").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "notebooks"
    raise MissingDataError(
        f"the mrviz notebooks are neither in {package} nor in {checkout}: "
        'reinstall with pip install --force-reinstall --no-deps "mrviz[lab]"'
    )


def prepare(folder: Path, source: Path | None = None) -> Path:
    """Copies missing notebooks into ``folder/notebooks``; returns the folder they are in.

    What is there already stays as it is. Inside a checkout the notebooks are used in place.

    Args:
        folder: working folder, created where needed.
        source: folder the notebooks come from; default: those that came with mrviz.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = folder.expanduser().resolve()
    if source is None:
        source = shipped_notebooks()
        if source.parent in (folder, *folder.parents):
            return source
    target = folder / "notebooks"
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    try:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            source, target, ignore=hidden, copy_function=_copy_if_missing, dirs_exist_ok=True
        )
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot copy the notebooks to {target} ({reason}): start mrviz lab in a folder "
            "you can write, or name one with --folder"
        ) from None
    return target


def jupyter_arguments(notebook: Path, extra: Sequence[str] = ()) -> list[str]:
    """Arguments for ``jupyter lab`` that open ``notebook``, followed by the user's own.

    No news prompt, no update check, no extension catalogue: nothing asks the network.
    A setting the user gives in ``extra`` replaces the one of the same name.
    """
    page = f"/lab/tree/{notebook.parent.name}"
    settings = {
        "ServerApp.root_dir": str(notebook.parent.parent),
        "LabApp.default_url": f"{page}/{notebook.name}" if notebook.is_file() else page,
        "LabApp.news_url": "None",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
        "Application.log_level": "WARN",
    }
    given = {argument.lstrip("-").split("=")[0] for argument in extra}
    arguments = [f"--{name}={value}" for name, value in settings.items() if name not in given]
    if not _has_display() and "no-browser" not in given:
        arguments.append("--no-browser")
    if _is_root() and "allow-root" not in given:
        arguments.append("--allow-root")
    return [*arguments, *extra]


def jupyter_environment() -> dict[str, str]:
    """Environment variables for JupyterLab: what its command line cannot say.

    The kernel is this Python whatever kernels the user installed elsewhere, and JupyterLab does
    not ask about news unless the user's own settings say so.
    """
    settings = [str(Path(__file__).resolve().parent / "jupyter")]
    if given := os.environ.get("JUPYTER_CONFIG_PATH"):
        settings.append(given)
    return {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": os.pathsep.join(settings),
    }


def _copy_if_missing(source: str, target: str) -> str:
    """Copies one file unless there is one; a copy cut short never stays under the real name."""
    if not os.path.lexists(target):
        partial = shutil.copyfile(source, f"{target}.part")
        os.replace(partial, target)
    return target


def _has_display() -> bool:
    """Whether a browser can open a window here."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


if __name__ == "__main__":
    sys.exit(main())
