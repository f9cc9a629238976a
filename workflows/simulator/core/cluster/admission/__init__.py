"""Rules for objects that a client sends: known fields, defaults, validation."""
