"""The steps of the line: each looks, plans, changes only what differs, and says what it found."""
