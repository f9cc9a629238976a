"""The document: schema, validation errors, overrides."""
