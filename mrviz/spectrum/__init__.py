"""Spectra of Gram matrices, with what round-off hides marked as hidden."""

from mrviz.spectrum.dense import Spectrum, spectrum

__all__ = ["Spectrum", "spectrum"]
