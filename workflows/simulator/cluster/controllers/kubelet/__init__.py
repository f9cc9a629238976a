"""Runs the pods: mounts, environment, containers, probes, logs and their graceful end."""

from workflows.simulator.cluster.controllers.kubelet.kubelet import SIMULATED, Kubelet

__all__ = ["SIMULATED", "Kubelet"]
