"""Runs the command line as ``python -m mrviz.cli``."""

import sys

from mrviz.cli import main

sys.exit(main())
