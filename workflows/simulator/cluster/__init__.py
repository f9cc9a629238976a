"""An embedded Kubernetes: API server, store, controllers and kubelet, for runs without a cluster."""
