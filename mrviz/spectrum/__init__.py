"""Spectra of Gram matrices, with what round-off hides marked as hidden."""

from mrviz.spectrum.dense import Spectrum, spectrum
from mrviz.spectrum.sweep import CapacitySweep, capacity_sweep

__all__ = ["CapacitySweep", "Spectrum", "capacity_sweep", "spectrum"]
