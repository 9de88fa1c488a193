"""Redis, S3 and workers on this machine."""
