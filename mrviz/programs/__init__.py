"""Input programs, output mappings and the reprogrammed model they form with a source."""

from mrviz.programs import mappings
from mrviz.programs.base import KernelBlock, Program
from mrviz.programs.chain import Chain, linear_border
from mrviz.programs.linear import Linear
from mrviz.programs.model import (
    MAPPINGS,
    PROGRAMS,
    ReprogrammedModel,
    build_program,
    reprogram,
)
from mrviz.programs.prompts import Border, Overlay

__all__ = [
    "MAPPINGS",
    "PROGRAMS",
    "Border",
    "Chain",
    "KernelBlock",
    "Linear",
    "Overlay",
    "Program",
    "ReprogrammedModel",
    "build_program",
    "linear_border",
    "mappings",
    "reprogram",
]
