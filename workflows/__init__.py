"""The line as data, its Argo manifests, and local runs against embedded services."""
