"""Transfers of a model from {hub, directory} to {bucket, directory}: plan, move, verify, resume."""
