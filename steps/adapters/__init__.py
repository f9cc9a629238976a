"""One outside system each. Only adapters import an SDK."""
