"""The checks: small functions over facts, in one table with code, title and hint."""
