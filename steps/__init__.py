"""The steps of the line: each looks, plans, changes only what differs, and says what it found."""

__version__ = "0.1.0"  # recorded in every manifest that a transfer writes
