"""The pipeline as Argo manifests. Only this package imports Hera."""
