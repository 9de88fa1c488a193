"""What a run leaves behind: objects in S3, progress in Redis."""
