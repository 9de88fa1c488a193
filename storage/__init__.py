"""What a run stores: objects in S3, progress in Redis."""
