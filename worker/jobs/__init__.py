"""The parts of a run: its request, inputs, artifacts and result."""
