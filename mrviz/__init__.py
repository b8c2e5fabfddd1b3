"""See model reprogramming through its Neural Tangent Kernel.

The core needs torch, numpy and scipy alone; figures, widgets and data packages load when used.
"""

import os
from typing import TYPE_CHECKING, Any

# Threads that wait by spinning make PyTorch up to ten times slower on a machine that is busy
# with anything else, such as the browser that shows the Explorer. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mrviz import programs, sources, study, targets
from mrviz.errors import (
    Cancelled,
    ClusterError,
    DeviceError,
    InputError,
    MissingDataError,
    MrvizError,
    ResourceError,
)
from mrviz.ntk import Gram, infinite_width_ntk, ntk_gram, ntk_operator, source_ntk
from mrviz.programs import ReprogrammedModel, mappings, reprogram
from mrviz.programs.fit import Fit
from mrviz.programs.saved import load
from mrviz.programs.training import train
from mrviz.sources import SourceModel, load_source
from mrviz.spectrum import (
    CapacitySweep,
    Spectrum,
    capacity_sweep,
    extreme_eigenvalues,
    spectral_density,
    spectrum,
)
from mrviz.targets import Target, load_target
from mrviz.theory import (
    Condition,
    Conditions,
    Prediction,
    Ranking,
    Thresholds,
    kernel_drift,
    predict_training,
    rank_programs,
    rank_sources,
    transfer_conditions,
)
from mrviz.theory.regression import kernel_regression

if TYPE_CHECKING:
    from mrviz import tuning
    from mrviz.tuning import Tuning, autotune
    from mrviz.widgets import Explorer

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "CapacitySweep",
    "ClusterError",
    "Condition",
    "Conditions",
    "DeviceError",
    "Fit",
    "Gram",
    "InputError",
    "MissingDataError",
    "MrvizError",
    "Prediction",
    "Ranking",
    "ReprogrammedModel",
    "ResourceError",
    "SourceModel",
    "Spectrum",
    "Target",
    "Thresholds",
    "Tuning",
    "autotune",
    "capacity_sweep",
    "explore",
    "extreme_eigenvalues",
    "infinite_width_ntk",
    "kernel_drift",
    "kernel_regression",
    "load",
    "load_source",
    "load_target",
    "mappings",
    "ntk_gram",
    "ntk_operator",
    "predict_training",
    "programs",
    "rank_programs",
    "rank_sources",
    "reprogram",
    "source_ntk",
    "sources",
    "spectral_density",
    "spectrum",
    "study",
    "targets",
    "train",
    "transfer_conditions",
    "tuning",
]


def explore(*, view: str = "spectrum", **choices: Any) -> "Explorer":
    """Opens the Explorer; see :class:`mrviz.widgets.Explorer` for the views and the choices.

    Example:
        >>> mrviz.explore(target="digits", program="linear")  # doctest: +SKIP
    """
    from mrviz.widgets import Explorer

    return Explorer(view=view, **choices)


def __getattr__(name: str) -> Any:
    """Loads what searches when it is used first."""
    if name not in ("Tuning", "autotune", "tuning"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    tuning = importlib.import_module("mrviz.tuning")
    return tuning if name == "tuning" else getattr(tuning, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
