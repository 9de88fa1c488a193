"""BAGEL: the unified model itself, on torch."""
