"""Which transport Mooncake took. Its log is the only witness: without a usable RDMA device it takes TCP, silently.

mooncake-transfer-engine/src/transport/tcp_transport/tcp_transport.cpp and rdma_transport/rdma_context.cpp of
https://github.com/kvcache-ai/Mooncake
"""

from typing import Literal

Transport = Literal["rdma", "tcp", "unknown"]

LOG_LINES = 5000  # the lines come at the start, and rotate away in time

_TCP = "TcpTransport: listen on port"
_RDMA = "RDMA device: "


def transport(log: str) -> Transport:
    """The last word counts: a restarted engine may have chosen anew."""
    tcp, rdma = log.rfind(_TCP), log.rfind(_RDMA)
    if max(tcp, rdma) < 0:
        return "unknown"
    return "tcp" if tcp > rdma else "rdma"
