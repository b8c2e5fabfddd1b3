import sys
from pathlib import Path

import pytest

from mrviz._cache import cache_dir


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("MRVIZ_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def test_own_variable_wins_over_the_systems(monkeypatch, home):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_dir() == home / "xdg" / "mrviz"
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(home / "own"))
    assert cache_dir() == home / "own"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", ".cache/mrviz"),
        ("darwin", "Library/Caches/mrviz"),
        ("win32", "AppData/Local/mrviz/Cache"),
    ],
)
def test_system_places(monkeypatch, home, platform, folder):
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_dir() == home / folder
