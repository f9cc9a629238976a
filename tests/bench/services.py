"""`python -m tests.bench.services KIND FOLDER`: one embedded service in its own process, so that its CPU time does
not count for the client. Prints its address, and stops when its standard input ends.

hub: the models below FOLDER; bucket: keeps checksums and drops the bytes; drain: reads all bytes that reach its port.
"""

import argparse
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.hub import Hub

KEY_ID, KEY_SECRET = "bench-id", "bench-secret"
BUCKET = "demo-models"
REGION = "cn-hangzhou"
RECEIVED = 1 << 20  # bytes

_Started = tuple[str, Callable[[], None]]  # address, and the function that stops it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.services")
    parser.add_argument("kind", choices=("hub", "bucket", "drain"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=int, default=0, help="bytes a second of one connection to the hub; 0: all")
    options = parser.parse_args()
    address, stop = {"hub": _hub, "bucket": _bucket, "drain": _drain}[options.kind](options.folder, options.rate)
    print(address, flush=True)
    while os.read(0, 1024):
        pass
    stop()
    return 0


def _hub(folder: Path, rate: int) -> _Started:
    hub = Hub(folder, rate=rate)
    hub.start()
    return hub.url, hub.stop


def _bucket(folder: Path, _rate: int) -> _Started:
    bucket = Bucket(
        folder,
        access_key_id=KEY_ID,
        access_key_secret=KEY_SECRET,
        buckets=(BUCKET,),
        region=REGION,
        keep="checksums",
    )
    bucket.start()
    return bucket.url, bucket.stop


def _drain(_folder: Path, _rate: int) -> _Started:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}", listener.close


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_forget, args=(connection,), daemon=True).start()


def _forget(connection: socket.socket) -> None:
    buffer = bytearray(RECEIVED)
    with connection:
        while connection.recv_into(buffer):
            pass


if __name__ == "__main__":
    sys.exit(main())
