"""`python -m tests.bench.clients KIND ...`: clients to compare the transfer with, each in its own process.

download: the hub's own client with its defaults; upload: `oss2.resumable_upload` with its defaults; send: a raw socket.
"""

import argparse
import socket
import sys
from pathlib import Path

from tests.bench.services import BUCKET, KEY_ID, KEY_SECRET

SENT = 1 << 24  # bytes of one sendall


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.clients")
    parser.add_argument("kind", choices=("download", "upload", "send"))
    parser.add_argument("address")
    parser.add_argument("what", help="download: the model; upload: the first part of every key; send: how many bytes")
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    options = parser.parse_args()
    {"download": _download, "upload": _upload, "send": _send}[options.kind](options)
    return 0


def _download(options: argparse.Namespace) -> None:
    from modelscope_hub import HubApi

    HubApi(endpoint=options.address).download_repo(options.what, "model", local_dir=options.folder)


def _upload(options: argparse.Namespace) -> None:
    import oss2

    bucket = oss2.Bucket(oss2.AuthV4(KEY_ID, KEY_SECRET), options.address, BUCKET, region="cn-hangzhou")
    for path in sorted(path for path in options.folder.rglob("*") if path.is_file()):
        key = f"{options.what}/{path.relative_to(options.folder).as_posix()}"
        # It keeps its resume points in the home folder, which the bench replaces by its own.
        oss2.resumable_upload(bucket, key, str(path))


def _send(options: argparse.Namespace) -> None:
    host, _, port = options.address.partition(":")
    body = memoryview(bytearray(SENT))
    left = int(options.what)
    with socket.create_connection((host, int(port))) as connection:
        while left > 0:
            connection.sendall(body[: min(left, SENT)])
            left -= SENT


if __name__ == "__main__":
    sys.exit(main())
