"""Runs the pods: mounts, environment, containers, probes, logs and graceful termination."""
