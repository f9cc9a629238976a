"""An embedded Kubernetes: objects with their rules, controllers and kubelet."""
