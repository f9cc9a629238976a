"""SGLang by version: flags."""
