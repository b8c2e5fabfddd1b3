"""Source Jacobians and structured Gram matrices of the target NTK."""

from mrviz.ntk.compute import jacobian_gram, ntk_gram
from mrviz.ntk.factors import REDUCTIONS, Reduction
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.jacobian import JacobianCache, cache, source_jacobian
from mrviz.ntk.operator import NTKOperator, ntk_operator
from mrviz.ntk.plan import METHODS
from mrviz.ntk.sketch import Sketch, sketch_grams
from mrviz.ntk.source_kernel import infinite_width_ntk, source_ntk
from mrviz.ntk.sweep import capacity_grams

__all__ = [
    "METHODS",
    "REDUCTIONS",
    "Gram",
    "GramInfo",
    "JacobianCache",
    "NTKOperator",
    "Reduction",
    "Sketch",
    "cache",
    "capacity_grams",
    "infinite_width_ntk",
    "jacobian_gram",
    "ntk_gram",
    "ntk_operator",
    "sketch_grams",
    "source_jacobian",
    "source_ntk",
]
