"""Everything that is kept in Redis: runs, their progress, leases and queue slots."""
