import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
