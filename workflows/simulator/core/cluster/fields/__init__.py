"""Changes of single fields: patches, server-side apply, and the owners of each field."""
