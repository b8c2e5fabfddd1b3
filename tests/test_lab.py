"""mrviz lab: what is copied where, and how JupyterLab is started (not started here)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from mrviz import lab
from mrviz.errors import InputError, MissingDataError

OVERRIDES = "default_setting_overrides.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "shipped" / "notebooks"
    (folder / "images").mkdir(parents=True)
    (folder / "01-explorer.ipynb").write_text("explorer")
    (folder / "images" / "one.png").write_text("picture")
    (folder / ".ipynb_checkpoints").mkdir()
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of every JupyterLab that would have been started."""
    from jupyterlab.labapp import LabApp

    calls: list[list[str]] = []

    def initialize_server(argv: list[str]) -> MagicMock:
        calls.append(argv)
        return MagicMock()

    monkeypatch.setattr(LabApp, "initialize_server", initialize_server)
    for name in lab.jupyter_environment():
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    return calls


def test_notebooks_are_copied_into_an_empty_folder(source: Path, tmp_path: Path) -> None:
    notebooks = lab.prepare(tmp_path / "course" / "week 1", source)
    assert notebooks == tmp_path / "course" / "week 1" / "notebooks"
    assert (notebooks / "01-explorer.ipynb").read_text() == "explorer"
    assert {p.name for p in notebooks.rglob("*")} == {"01-explorer.ipynb", "images", "one.png"}


def test_what_the_user_changed_stays(source: Path, tmp_path: Path) -> None:
    notebooks = lab.prepare(tmp_path, source)
    (notebooks / "01-explorer.ipynb").write_text("my notes")
    (notebooks / "images" / "one.png").unlink()
    lab.prepare(tmp_path, source)
    assert (notebooks / "01-explorer.ipynb").read_text() == "my notes"
    assert (notebooks / "images" / "one.png").read_text() == "picture"


def test_a_checkout_is_used_in_place(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "shipped_notebooks", lambda: source)
    for folder in (source.parent, source, source / "images"):
        assert lab.prepare(folder) == source
    assert not (source / "notebooks").exists()


def test_a_folder_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "notebooks").write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"cannot copy .*notebooks.* --folder"):
        lab.prepare(tmp_path, source)


def test_jupyter_opens_the_notebook_and_stays_offline(source: Path) -> None:
    arguments = lab.jupyter_arguments(source / "01-explorer.ipynb")
    assert f"--ServerApp.root_dir={source.parent}" in arguments
    assert "--LabApp.default_url=/lab/tree/notebooks/01-explorer.ipynb" in arguments
    assert "--LabApp.news_url=None" in arguments
    assert "--LabApp.extension_manager=readonly" in arguments
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in arguments


def test_a_missing_notebook_opens_the_folder(source: Path) -> None:
    arguments = lab.jupyter_arguments(source / "99-none.ipynb")
    assert "--LabApp.default_url=/lab/tree/notebooks" in arguments


def test_the_users_own_settings_win(source: Path) -> None:
    given = ["--port=9000", "--LabApp.default_url=/lab"]
    arguments = lab.jupyter_arguments(source / "01-explorer.ipynb", given)
    assert arguments[-2:] == given
    assert sum("default_url" in a for a in arguments) == 1


@pytest.mark.parametrize("root", [True, False])
def test_root_is_allowed_only_for_root(
    root: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000, raising=False)
    assert ("--allow-root" in lab.jupyter_arguments(source / "a.ipynb")) is root


@pytest.mark.parametrize(
    ("platform", "display", "opens"),
    [
        ("linux", None, False),
        ("linux", "DISPLAY", True),
        ("linux", "WAYLAND_DISPLAY", True),
        ("darwin", None, True),
        ("win32", None, True),
    ],
)
def test_a_browser_opens_only_where_there_is_a_display(
    platform: str, display: str | None, opens: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    assert ("--no-browser" not in lab.jupyter_arguments(source / "a.ipynb")) is opens


def test_main_passes_unknown_options_on(
    source: Path,
    tmp_path: Path,
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lab, "shipped_notebooks", lambda: source)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert lab.main(["--folder", str(tmp_path / "here"), "--port=9000"]) == 0
    assert "--port=9000" in started[0]
    assert "Open the address below" in capsys.readouterr().out
    assert (tmp_path / "here" / "notebooks" / "01-explorer.ipynb").is_file()


def test_without_jupyterlab_the_command_that_adds_it_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[lab\]"'):
        lab.launch(tmp_path, source=source)
    assert not (tmp_path / "notebooks").exists()


def test_the_kernel_is_this_python_whatever_the_user_installed(
    source: Path, tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "user" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python"], "display_name": "Other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    lab.launch(tmp_path, source=source)
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(tmp_path / "user")}
    code = (
        "from jupyter_client.kernelspec import KernelSpecManager as Manager;"
        "print(Manager().get_kernel_spec('python3').resource_dir)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert Path(done.stdout.strip()).is_relative_to(sys.prefix)


def test_the_users_own_jupyter_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/my/settings")
    folder, mine = lab.jupyter_environment()["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert mine == "/my/settings"
    overrides = json.loads((Path(folder) / "labconfig" / OVERRIDES).read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_the_notebooks_of_this_checkout_are_found() -> None:
    if not (Path(lab.__file__).parents[1] / "notebooks").is_dir():
        pytest.skip("no notebooks here yet")
    assert lab.shipped_notebooks().name == "notebooks"
