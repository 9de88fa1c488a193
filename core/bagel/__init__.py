"""BAGEL: the unified model itself, on torch."""

import os

# Torch's CPU threads (libgomp) spin while they wait for each other. On cores that others use too, that made the same
# run take up to a hundred times longer; a short spin costs nothing when the cores are free. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from core.bagel.model import Bagel

__all__ = ["Bagel"]
