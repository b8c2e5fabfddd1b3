"""Every test here starts with an empty Jacobian cache of the usual size."""

import pytest

from mrviz.ntk import cache


@pytest.fixture(autouse=True)
def _empty_cache():
    limit = cache.limit
    cache.clear()
    yield
    cache.clear()
    cache.limit = limit
