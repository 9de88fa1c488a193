"""BAGEL: the unified model itself, on torch."""

from core.bagel.model import Bagel

__all__ = ["Bagel"]
