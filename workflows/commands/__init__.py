"""The verbs of `slipway`, one module for each group."""
