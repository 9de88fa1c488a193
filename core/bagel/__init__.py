"""BAGEL, the unified model, implemented with torch."""

import os

# Torch's CPU threads (libgomp) spin while they wait for each other. On cores shared with other processes, that makes a
# run up to a hundred times slower; a short spin costs nothing on free cores. libgomp reads this when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from core.bagel.model import Bagel

__all__ = ["Bagel"]
