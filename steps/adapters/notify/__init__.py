"""Targets of messages."""
