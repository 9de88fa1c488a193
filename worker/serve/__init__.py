"""Serving: from a delivered message to a manifest."""
