"""The source's own tangent kernel K_S: of the network at hand, and of one of infinite width."""

from mrviz.ntk.source_kernel.infinite_width import infinite_width_ntk
from mrviz.ntk.source_kernel.kernel import gram_cache, source_ntk

__all__ = ["gram_cache", "infinite_width_ntk", "source_ntk"]
