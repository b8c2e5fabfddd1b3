"""Training of the parameters of a reprogrammed model; the source stays frozen."""

from mrviz.programs.training.options import (
    ADAM_RATES,
    BATCH_SIZE,
    FULL_BATCH,
    KEEP,
    MOMENTUM,
    OPTIMIZERS,
    STEPS,
    check_momentum,
    check_rate,
    split_sizes,
)
from mrviz.programs.training.run import train
from mrviz.programs.training.spsa import SPSA

__all__ = [
    "ADAM_RATES",
    "BATCH_SIZE",
    "FULL_BATCH",
    "KEEP",
    "MOMENTUM",
    "OPTIMIZERS",
    "SPSA",
    "STEPS",
    "check_momentum",
    "check_rate",
    "split_sizes",
    "train",
]
