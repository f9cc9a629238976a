"""Kubernetes objects as data, and the difference between the declared and the live object.

| module | content |
|---|---|
| `group`, `pod_template`, `probes`, `services` | manifests of a release: RoleBasedGroup, pods, Services |
| `group_operator` | versions of the RBG operator |
| `volume`, `scratch_claim` | volume of a model in the bucket; scratch volume of a run |
| `record` | the release record |
| `metadata`, `ownership` | labels of all objects; the owner of an object |
| `converging` | observe, create, update and delete objects |
| `difference`, `field_managers` | differences for people; the last writer of a field |
| `pod_status` | status of a pod for people |
| `read_only` | a client without writes, with a preview computed here |
"""
