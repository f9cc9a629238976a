"""Declarations of the faults that a rehearsal can inject."""
