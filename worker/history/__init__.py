"""Runs that are stored: read back, branched, compared and verified."""
