"""Objects of a bucket: read whole or by range, written, copied and deleted whole."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import fastcrc
from oss2.exceptions import NoSuchKey, NotFound, ServerError

from steps.adapters.oss import answers
from steps.adapters.oss.client import OssClient
from steps.errors import TransientError
from steps.ports.oss import Metadata, StoredObject

PAGE = 1000  # the limit of OSS for one list or delete


class OssObjects:
    def __init__(self, client: OssClient) -> None:
        self._client = client
        self._api = client.api

    def head(self, key: str) -> StoredObject | None:
        def call() -> StoredObject | None:
            try:
                return answers.stored_object(key, self._api.head_object(key))
            except NotFound as error:
                _check_absent(error)
                return None

        return self._client.request(self._client.operation("read the headers of", "oss:GetObject", key), call)

    def scan(self, prefix: str) -> Iterator[StoredObject]:
        token, more = "", True
        while more:
            page = self._client.request(
                self._client.operation("list", "oss:ListObjects", prefix),
                partial(self._api.list_objects_v2, prefix, continuation_token=token, max_keys=PAGE),
            )
            for found in page.object_list:
                yield StoredObject(found.key, found.size, found.etag)
            token, more = page.next_continuation_token, page.is_truncated

    def get(self, key: str) -> bytes | None:
        def call() -> bytes | None:
            try:
                answer = self._api.get_object(key)
            except NotFound as error:
                _check_absent(error)
                return None
            with answer:
                body: bytes = answer.resp.response.raw.read()
            answers.compare(answer.server_crc, fastcrc.crc64.xz(body), answer.request_id)
            return body

        return self._client.request(self._client.operation("read", "oss:GetObject", key), call)

    def read(self, key: str, start: int, buffer: memoryview) -> None:
        if not buffer:
            return
        last = start + len(buffer) - 1

        def call() -> None:
            # Without `standard`, OSS answers a range that does not fit with the whole object.
            # https://www.alibabacloud.com/help/en/oss/developer-reference/getobject
            headers = {"x-oss-range-behavior": "standard"}
            with self._api.get_object(key, byte_range=(start, last), headers=headers) as answer:
                answers.check_range(answer, start, len(buffer))
                limits = self._client.limits
                answers.fill(answer.resp.response.raw, buffer, limits.throughput, limits.piece)

        self._client.request(self._client.operation(f"read bytes {start} to {last} of", "oss:GetObject", key), call)

    def put(
        self, key: str, body: bytes | memoryview, *, metadata: Metadata | None = None, forbid_overwrite: bool = False
    ) -> StoredObject | None:
        headers = answers.metadata_headers(metadata)
        if forbid_overwrite:
            headers["x-oss-forbid-overwrite"] = "true"
        expected = StoredObject(key, len(body), "", fastcrc.crc64.xz(body), dict(metadata or {}))
        attempts = self._client.attempts(self._client.operation("write", "oss:PutObject", key))

        def call() -> StoredObject | None:
            try:
                answer = self._api.put_object(key, answers.sendable(body), headers=headers)
            except ServerError as error:
                if error.code != "FileAlreadyExists":
                    raise
                # The object may come from an earlier attempt with a lost answer.
                return self._same(expected) if attempts.count > 1 else None
            return self._compared(expected, answer)

        return attempts.request(call)

    def copy(self, source: StoredObject, key: str, metadata: Metadata | None) -> StoredObject:
        """`source` has its CRC-64. Without `metadata`, the copy keeps that of the source."""
        expected = copied(source, key, metadata)
        headers = answers.metadata_headers(expected.metadata)
        if metadata is not None:
            headers["x-oss-metadata-directive"] = "REPLACE"

        def call() -> StoredObject:
            return self._compared(
                expected, self._api.copy_object(self._client.bucket, source.key, key, headers=headers)
            )

        description = f"copy oss://{self._client.bucket}/{source.key} to"
        return self._client.request(self._client.operation(description, "oss:PutObject", key), call)

    def delete(self, keys: Iterable[str]) -> None:
        remaining = iter(keys)
        while page := list(islice(remaining, PAGE)):
            description = f"delete {len(page)} objects, among them" if len(page) > 1 else "delete"
            operation = self._client.operation(description, "oss:DeleteObject", page[0])
            answer = self._client.request(operation, partial(self._api.batch_delete_objects, page))
            kept = set(page) - set(answer.deleted_keys)
            if kept:
                raise TransientError(
                    f"cannot {operation}: OSS kept {len(kept)} of them, such as {min(kept)}", "run it again"
                )

    def present(self, key: str) -> StoredObject:
        """Raises TransientError for an absent object."""
        found = self.head(key)
        if found is None:
            raise TransientError(
                f"oss://{self._client.bucket}/{key} is gone: another client deleted it during this step", "run it again"
            )
        return found

    def _same(self, expected: StoredObject) -> StoredObject | None:
        found = self.head(expected.key)
        return found if found and (found.size, found.crc64) == (expected.size, expected.crc64) else None

    def _compared(self, expected: StoredObject, answer: Any) -> StoredObject:
        """The object of a write. Raises ChecksumError for other bytes, after the object is deleted."""
        found = answer.crc
        if found is None:
            found = self.present(expected.key).crc64
        if found != expected.crc64:
            self._api.delete_object(expected.key)
        answers.compare(found, expected.crc64, answer.request_id)
        return StoredObject(expected.key, expected.size, answer.etag, expected.crc64, expected.metadata)


def copied(source: StoredObject, key: str, metadata: Metadata | None) -> StoredObject:
    """The object that a copy has to become."""
    return StoredObject(key, source.size, "", source.crc64, dict(source.metadata if metadata is None else metadata))


def _check_absent(error: NotFound) -> None:
    """Only an object may be absent. Raises the error of any other absence.

    An answer to HEAD has no body, and without the header x-oss-err it has no code either.
    """
    if not isinstance(error, NoSuchKey) and error.code:
        raise error
