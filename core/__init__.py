"""The interpreter: plans, the sequence and what it asks of a model."""
