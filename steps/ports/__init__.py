"""Protocols of the outside systems, one module each. `steps/adapters` implements them.

Every method raises Blocked when the other side refuses (no permission, no such bucket, wrong signature) and
TransientError when it does not answer, after the adapter's own retries. Absent is None, and only for a real NotFound.
"""
