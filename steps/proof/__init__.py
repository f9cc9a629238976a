"""Proofs of a release by real inference.

| module | content |
|---|---|
| `worker_endpoints` | workers and router of a release as HTTP servers |
| `worker_state` | the configuration that each worker reports, compared with the document and with the other workers |
| `transport` | RDMA or TCP, from the log of a worker |
| `counters` | counters of a worker, and the difference of two readings |
| `probe_requests` | order of the probe requests, and their evaluation |
| `answers` | defects of an answer with status 200 |
"""
