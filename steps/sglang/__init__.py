"""SGLang by version: `flags` holds the command lines of workers and router."""
