"""Moving a model between {hub, directory} and {bucket, directory}: decide what to move, move it, prove it, remember."""
