"""The steps of the pipeline: each observes, plans, applies the differences, and reports."""

__version__ = "0.1.0"  # recorded in every manifest that a transfer writes
