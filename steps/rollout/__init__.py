"""From a group to a promoted release.

| module | content |
|---|---|
| `observation` | a RoleBasedGroup with its workloads, pods, events and logs |
| `readiness` | the readiness gate |
| `workload_status` | progress of the workload of one role |
| `causes` | failures of a pod that time does not mend |
| `writer_lease`, `lease_holder` | one writer at a time, and whether the holder of a Lease still runs |
| `intent` | whether a newer run has promoted a release |
| `inherited_overrides` | overrides of the last promotion that a run inherits |
| `garbage` | objects of releases that are no longer needed |
"""
