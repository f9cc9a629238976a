"""The embedded bucket and its adapter, as tests use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from steps.adapters.oss.client import OssLimits
from steps.adapters.oss.credentials import Credentials, StaticCredentials
from steps.adapters.oss.store import OssStore
from steps.ports.oss import AccessKey
from workflows.simulator.http.bucket import Bucket

KEY_ID, KEY_SECRET = "dummy-id", "dummy-secret"
NAME = "models"
REGION = "cn-hangzhou"
# Real retries, but with short pauses. Timeouts keep their time: a machine that is busy for seconds must not be taken
# for a slow bucket.
HASTY = OssLimits(retries=replace(OssLimits.retries, budget=60, first_pause=0.001, longest_pause=0.01))


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Bucket]:
    """A started bucket called `models` that wants version 4 signatures for cn-hangzhou."""
    bucket = Bucket(
        folder, access_key_id=KEY_ID, access_key_secret=KEY_SECRET, buckets=(NAME,), region=REGION, **options
    )
    bucket.start()
    try:
        yield bucket
    finally:
        bucket.stop()


def store(bucket: Bucket, credentials: Credentials | None = None, limits: OssLimits = HASTY) -> OssStore:
    return OssStore(
        *(bucket.url, REGION, NAME, credentials or StaticCredentials(AccessKey(KEY_ID, KEY_SECRET))), limits=limits
    )
