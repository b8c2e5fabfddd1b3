"""The Explorer and its parts; needs ipywidgets, anywidget and plotly."""

from importlib.util import find_spec

from mrviz.errors import MissingDataError

for _package in ("anywidget", "ipywidgets", "plotly"):
    if find_spec(_package) is None:
        raise MissingDataError(f'the Explorer needs {_package}: pip install "mrviz[lab]"')

from mrviz.widgets.explorer import Explorer  # noqa: E402

__all__ = ["Explorer"]
