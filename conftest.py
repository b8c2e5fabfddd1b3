"""Names that docstring examples use without importing them."""

from typing import Any

import numpy
import pytest
import torch

import mrviz


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(mrviz=mrviz, np=numpy, torch=torch, nn=torch.nn)
