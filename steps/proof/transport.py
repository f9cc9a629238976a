"""Transport of Mooncake, from its log alone: without a usable RDMA device it falls back to TCP silently.

mooncake-transfer-engine/src/transport/tcp_transport/tcp_transport.cpp and rdma_transport/rdma_context.cpp of
https://github.com/kvcache-ai/Mooncake
"""

from typing import Literal

Transport = Literal["rdma", "tcp", "unknown"]

LOG_LINES = 5000  # Mooncake logs its transport at the start, and the kubelet rotates logs

_TCP = "TcpTransport: listen on port"
_RDMA = "RDMA device: "


def transport(log: str) -> Transport:
    """The last line counts: a restarted engine may have chosen another transport."""
    tcp, rdma = log.rfind(_TCP), log.rfind(_RDMA)
    if max(tcp, rdma) < 0:
        return "unknown"
    return "tcp" if tcp > rdma else "rdma"
