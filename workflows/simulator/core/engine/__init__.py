"""Simulated SGLang workers and router: flags, KV transfer, counters and answers."""
