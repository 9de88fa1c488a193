"""The interpreter of recipes: plans, sequences and the protocol of models."""
