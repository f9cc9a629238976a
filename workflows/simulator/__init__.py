"""Embedded services for local runs: hub, bucket, cluster and engine, over real sockets on loopback.

They behave like the real services, errors included; the contract tests in `tests/contract` run on both.
"""
