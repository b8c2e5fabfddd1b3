"""Which device these tests compare with the CPU."""

import os

import pytest

from mrviz.ntk import cache

DEVICE = os.environ.get("MRVIZ_TEST_DEVICE", "cuda")
"""Another one, such as cpu, tries the tests themselves where there is no GPU."""


@pytest.fixture
def device():
    cache.clear()
    yield DEVICE
    cache.clear()
