"""What a run is made of: its request, inputs, artifacts and result."""
