"""Runs for people.

| module | content |
|---|---|
| `run` | a run and its tasks |
| `argo_nodes` | reads a run from its Workflow object |
| `run_end` | the end of a run, for the exit handler |
| `recap` | rows and durations for tables and pages |
"""
