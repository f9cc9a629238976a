"""One bucket through oss2, and how every request to it is made."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import oss2
from oss2.exceptions import ClientError

from steps.adapters.oss.credentials import Credentials
from steps.adapters.oss.errors import Task
from steps.adapters.oss.retries import Patience, Retries
from steps.adapters.oss.session import TIMEOUTS, Session
from steps.errors import Blocked

Result = TypeVar("Result")
PAGE = 1000  # the most that OSS lists, and deletes, at once
NO_METADATA: Mapping[str, str] = {}


class OssAccess:
    def __init__(
        self, endpoint: str, region: str, bucket: str, credentials: Credentials, patience: Patience | None = None
    ) -> None:
        self._bucket_name, self._region, self._endpoint = bucket, region, endpoint
        self._credentials = credentials
        self._patience = patience or Patience()
        try:
            self._bucket = oss2.Bucket(
                oss2.ProviderAuthV4(credentials),
                *(endpoint, bucket),
                session=Session(),
                connect_timeout=TIMEOUTS,
                enable_crc=False,
                region=region,
            )
        except ClientError as error:
            raise Blocked(
                f"cannot use the bucket {bucket!r} at {endpoint!r}: {error}",
                "check store.bucket and store.endpoint in the document",
            ) from error

    def _run(self, task: Task, request: Callable[[], Result]) -> Result:
        return self._retries(task).run(request)

    def _retries(self, task: Task) -> Retries:
        return Retries(self._patience, self._credentials, task)

    def _task(self, doing: str, action: str, key: str) -> Task:
        return Task(doing, action, self._bucket_name, key, self._region, self._endpoint)
