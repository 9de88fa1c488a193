"""The recipe language: what a run should make."""
