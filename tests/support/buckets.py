"""The embedded bucket and its adapter, as tests use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steps.adapters.oss.credentials import Credentials, StaticCredentials
from steps.adapters.oss.retries import Patience
from steps.adapters.oss.store import OssStore
from steps.ports.oss import AccessKey
from workflows.simulator.http.bucket import Bucket

KEY_ID, KEY_SECRET = "dummy-id", "dummy-secret"
NAME = "models"
REGION = "cn-hangzhou"
# Retries as in production, without the pauses. Timeouts keep their length: a busy machine must not pass for a slow
# bucket.
HASTE = Patience(budget=60, first_pause=0.001, longest_pause=0.01)


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


def store(bucket: Bucket, credentials: Credentials | None = None, patience: Patience = HASTE) -> OssStore:
    return OssStore(
        *(bucket.url, REGION, NAME, credentials or StaticCredentials(AccessKey(KEY_ID, KEY_SECRET))), patience=patience
    )
