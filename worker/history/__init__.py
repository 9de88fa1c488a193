"""Stored runs: read, branch, compare and verify them."""
