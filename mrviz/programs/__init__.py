"""Input programs, output mappings and the reprogrammed model they form with a source."""

from mrviz.programs import mappings
from mrviz.programs.base import KernelBlock, Program
from mrviz.programs.chain import Chain, linear_border
from mrviz.programs.convolution import Convolution
from mrviz.programs.forecasting import (
    ForecastComparison,
    ForecastScore,
    compare_forecasts,
    seasonal_naive,
)
from mrviz.programs.linear import Linear
from mrviz.programs.low_rank import LowRankLinear
from mrviz.programs.model import MAPPINGS, ReprogrammedModel, reprogram
from mrviz.programs.prompts import Border, Overlay
from mrviz.programs.registry import PROGRAMS, ProgramSpec, build_program
from mrviz.programs.scale import Scale

__all__ = [
    "MAPPINGS",
    "PROGRAMS",
    "Border",
    "Chain",
    "Convolution",
    "ForecastComparison",
    "ForecastScore",
    "KernelBlock",
    "Linear",
    "LowRankLinear",
    "Overlay",
    "Program",
    "ProgramSpec",
    "ReprogrammedModel",
    "Scale",
    "build_program",
    "compare_forecasts",
    "linear_border",
    "mappings",
    "reprogram",
    "seasonal_naive",
]
