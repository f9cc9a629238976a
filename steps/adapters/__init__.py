"""One package for each outside system. Only adapters import an SDK."""
