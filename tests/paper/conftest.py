"""The tiny study, run once for all tests that read it."""

import pytest

from mrviz.paper import study
from tests.paper.tiny import TINY


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with the tiny study, all questions."""
    for package in ("mlxtend", "sklearn", "aeon", "efficientnet_lite_pytorch"):
        pytest.importorskip(package)
    place = tmp_path_factory.mktemp("paper")
    study.run(place, settings=TINY)
    return place


@pytest.fixture(scope="session")
def rows(folder):
    """All its tables."""
    return study.load(folder, settings=TINY)
