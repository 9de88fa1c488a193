"""The wiring: Celery, one process a GPU, and the ways to enqueue."""
