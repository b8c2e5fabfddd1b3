"""Input programs, output mappings and the reprogrammed model they form with a source.

Every module of this folder is imported, so a file that holds a program with the decorator
:func:`program` is all it takes to add one (CONTRIBUTING.md).
"""

from importlib import import_module
from pkgutil import iter_modules

# In the order in which people meet the programs: simple ones first.
# isort: off
from mrviz.programs.base import Kind, KernelBlock, Program
from mrviz.programs.prompts import Border, Overlay
from mrviz.programs.linear import Linear
from mrviz.programs.chain import Chain, linear_border
from mrviz.programs.low_rank import LowRankLinear
from mrviz.programs.convolution import Convolution
from mrviz.programs.scale import Scale
from mrviz.programs.scaled_border import ScaledBorder
from mrviz.programs.patch import Patch, RandomPatch
from mrviz.programs.frequency import FrequencyPrompt
from mrviz.programs.sample_masks import SampleMasks
from mrviz.programs.series_padding import SeriesPadding
from mrviz.programs.lag_affine import LagAffine

# isort: on
from mrviz.programs import mappings
from mrviz.programs.forecasting import (
    ForecastComparison,
    ForecastScore,
    compare_forecasts,
    seasonal_naive,
)
from mrviz.programs.mappings import MAPPINGS, MappingSpec
from mrviz.programs.model import ReprogrammedModel, reprogram
from mrviz.programs.parts import Part
from mrviz.programs.registry import PROGRAMS, ProgramSpec, build_program, program, register

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "MAPPINGS",
    "PROGRAMS",
    "Border",
    "Chain",
    "Convolution",
    "ForecastComparison",
    "ForecastScore",
    "FrequencyPrompt",
    "KernelBlock",
    "Kind",
    "LagAffine",
    "Linear",
    "LowRankLinear",
    "MappingSpec",
    "Overlay",
    "Part",
    "Patch",
    "Program",
    "ProgramSpec",
    "RandomPatch",
    "ReprogrammedModel",
    "SampleMasks",
    "Scale",
    "ScaledBorder",
    "SeriesPadding",
    "build_program",
    "compare_forecasts",
    "linear_border",
    "mappings",
    "program",
    "register",
    "reprogram",
    "seasonal_naive",
]
