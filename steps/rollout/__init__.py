"""From a group to a promoted release: readiness, causes of failures, ownership, the writer Lease."""
