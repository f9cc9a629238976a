"""Kubernetes objects as data: what a release needs, how it differs from what is there, and when it is ready."""
