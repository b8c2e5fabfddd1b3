"""Every error mrviz raises on purpose: what was given, what was expected, what to do."""

from typing import Any


class MrvizError(Exception):
    """Base class of all errors raised by mrviz."""


class InputError(MrvizError, ValueError):
    """An argument has a wrong value, shape or type."""


class DeviceError(MrvizError, RuntimeError):
    """A device was asked for that this machine does not offer."""


class ResourceError(MrvizError, MemoryError):
    """The computation does not fit into memory; the message names a size that does."""


class ClusterError(MrvizError, RuntimeError):
    """A Dask cluster went away before its work was done; the message says what was kept."""


class MissingDataError(MrvizError, RuntimeError):
    """A package, data set or set of weights is not here; the message names the way to get it."""


class Cancelled(MrvizError):
    """The caller cancelled the computation; what was finished before stays in the caches.

    Attributes:
        fit: the :class:`~mrviz.Fit` of a training until then; ``None`` for anything else.
        tuning: the :class:`~mrviz.Tuning` of :func:`~mrviz.autotune` until then, likewise.
    """

    fit: Any = None
    tuning: Any = None
