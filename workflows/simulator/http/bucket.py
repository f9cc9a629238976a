"""The embedded bucket: an OSS-compatible server on loopback, with strict signatures."""

import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from workflows.simulator.core.bucket.index import Index
from workflows.simulator.core.bucket.keys import Key, KeyRing
from workflows.simulator.core.bucket.objects import Objects
from workflows.simulator.core.bucket.state import BucketState, Keep
from workflows.simulator.core.bucket.uploads import Uploads
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.bucket_handler import BucketHandler, Context
from workflows.simulator.http.server import LOOPBACK, LoopbackServer, PortInUseError


class Bucket:
    """Serves the buckets that it keeps in `folder`; what it kept survives kill -9 at any moment.

    The bytes of an object are also at `folder/objects/<bucket>/<key>`. `buckets` are made if they do not exist.
    `region` is what version 4 signatures must name; empty accepts any. `keep="checksums"` forgets the bytes of large
    objects and keeps what is known about them: for measuring transfers that are larger than the disk.

    Raises PortInUseError and FolderUnusableError.
    """

    def __init__(  # noqa: PLR0913  # one keyword for each thing that a rehearsal varies
        self,
        folder: Path,
        *,
        access_key_id: str,
        access_key_secret: str,
        port: int = 0,
        host: str = LOOPBACK,
        faults: RequestFaults | None = None,
        buckets: Iterable[str] = (),
        region: str = "",
        keep: Keep = "bytes",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = Index(folder / "meta" / "index.sqlite")
        self._store = BucketState(Objects(folder, self._index), Uploads(folder, self._index), clock, keep)
        self.keys = KeyRing(Key(access_key_id, access_key_secret))
        self._context = Context(self._store, self.keys, region, faults)
        for name in buckets:
            self._store.objects.create_bucket(name, clock())
        handler = type("_BoundHandler", (BucketHandler,), {"context": self._context})
        try:
            self._server = LoopbackServer(handler, port, host)
        except PortInUseError:
            self._index.close()
            raise

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def denied(self) -> set[str]:
        """RAM actions, such as `oss:PutObject`, that no key is allowed to do; add to it and take away at will."""
        return self._context.denied

    @property
    def requests(self) -> list[str]:
        """Everything that was asked so far, as `METHOD /path?query`."""
        return self._context.requests

    def issue(self, lifetime: float) -> Key:
        """A new temporary key (STS) that ends after `lifetime` seconds."""
        name = uuid.uuid4().hex
        key = Key(f"STS.{name[:16]}", f"dummy-secret-{name}", f"dummy-token-{name}", self._store.clock() + lifetime)
        self.keys.add(key)
        return key

    def expire_keys(self) -> None:
        """End all temporary keys now."""
        self.keys.expire(self._store.clock())

    def forget_keys(self) -> None:
        """Know no temporary key any more, as OSS does not once their role is gone."""
        self.keys.forget()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._index.close()
