"""Spectra of Gram matrices and operators, with what round-off hides marked as hidden."""

from mrviz.spectrum.dense import Spectrum, spectrum
from mrviz.spectrum.density import DensityCurve, Estimate, SpectralDensity, spectral_density
from mrviz.spectrum.extremes import ExtremeEigenvalues
from mrviz.spectrum.lanczos import extreme_eigenvalues
from mrviz.spectrum.sweep import CapacitySweep, capacity_sweep

__all__ = [
    "CapacitySweep",
    "DensityCurve",
    "Estimate",
    "ExtremeEigenvalues",
    "SpectralDensity",
    "Spectrum",
    "capacity_sweep",
    "extreme_eigenvalues",
    "spectral_density",
    "spectrum",
]
