"""Objects of a bucket, each as a whole or by ranges."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import fastcrc
from oss2.exceptions import NoSuchKey, NotFound, ServerError

from steps.adapters.oss import answers
from steps.adapters.oss.access import NO_METADATA, PAGE, OssAccess
from steps.errors import TransientError
from steps.ports.oss import StoredObject


class OssObjects(OssAccess):
    def head(self, key: str) -> StoredObject | None:
        def request() -> StoredObject | None:
            try:
                return answers.stored_object(key, self._bucket.head_object(key))
            except NotFound as error:
                _check_absent(error)
                return None

        return self._run(self._task("look at", "oss:GetObject", key), request)

    def scan(self, prefix: str) -> Iterator[StoredObject]:
        token, more = "", True
        while more:
            page = self._run(
                self._task("list", "oss:ListObjects", prefix),
                partial(self._bucket.list_objects_v2, prefix, continuation_token=token, max_keys=PAGE),
            )
            for found in page.object_list:
                yield StoredObject(found.key, found.size, found.etag)
            token, more = page.next_continuation_token, page.is_truncated

    def get(self, key: str) -> bytes | None:
        def request() -> bytes | None:
            try:
                answer = self._bucket.get_object(key)
            except NotFound as error:
                _check_absent(error)
                return None
            with answer:
                body: bytes = answer.resp.response.raw.read()
            answers.compare(answer.server_crc, fastcrc.crc64.xz(body), answer.request_id)
            return body

        return self._run(self._task("read", "oss:GetObject", key), request)

    def read(self, key: str, start: int, buffer: memoryview) -> None:
        if not buffer:
            return
        last = start + len(buffer) - 1

        def request() -> None:
            # Without `standard`, OSS answers a range that does not fit with the whole object.
            # https://www.alibabacloud.com/help/en/oss/developer-reference/getobject
            headers = {"x-oss-range-behavior": "standard"}
            with self._bucket.get_object(key, byte_range=(start, last), headers=headers) as answer:
                answers.check_range(answer, start, len(buffer))
                answers.fill(answer.resp.response.raw, buffer, self._patience)

        self._run(self._task(f"read bytes {start} to {last} of", "oss:GetObject", key), request)

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        metadata: Mapping[str, str] | None = None,
        forbid_overwrite: bool = False,
    ) -> StoredObject | None:
        headers = answers.metadata_headers(metadata or NO_METADATA)
        if forbid_overwrite:
            headers["x-oss-forbid-overwrite"] = "true"
        expected = fastcrc.crc64.xz(body)
        wanted = StoredObject(key, len(body), "", expected, dict(metadata or NO_METADATA))
        retries = self._retries(self._task("write", "oss:PutObject", key))

        def request() -> StoredObject | None:
            try:
                answer = self._bucket.put_object(key, answers.sendable(body), headers=headers)
            except ServerError as error:
                if error.code != "FileAlreadyExists":
                    raise
                # The answer to an earlier attempt may be what got lost.
                return self._same(wanted) if retries.attempts > 1 else None
            self._compare_written(key, answer, expected)
            return answers.written(wanted, answer)

        return retries.run(request)

    def delete(self, keys: Iterable[str]) -> None:
        remaining = iter(keys)
        while page := list(islice(remaining, PAGE)):
            doing = f"delete {len(page)} objects, among them" if len(page) > 1 else "delete"
            task = self._task(doing, "oss:DeleteObject", page[0])
            answer = self._run(task, partial(self._bucket.batch_delete_objects, page))
            kept = set(page) - set(answer.deleted_keys)
            if kept:
                raise TransientError(
                    f"cannot {task}: OSS kept {len(kept)} of them, such as {min(kept)}", "run it again"
                )

    def _present(self, key: str) -> StoredObject:
        found = self.head(key)
        if found is None:
            raise TransientError(f"oss://{self._bucket_name}/{key} is gone: somebody deleted it", "run it again")
        return found

    def _same(self, wanted: StoredObject) -> StoredObject | None:
        found = self.head(wanted.key)
        return found if found and (found.size, found.crc64) == (wanted.size, wanted.crc64) else None

    def _compare_written(self, key: str, answer: Any, expected: int) -> None:
        """Raises ChecksumError, and takes the object away: nobody may trust it."""
        found = answer.crc
        if found is None:
            found = self._present(key).crc64
        if found != expected:
            self._bucket.delete_object(key)
        answers.compare(found, expected, answer.request_id)


def _check_absent(error: NotFound) -> None:
    """Only an object may be absent; anything else that is not there is an error.

    An answer to HEAD has no body, and without the header x-oss-err it has no code either.
    """
    if not isinstance(error, NoSuchKey) and error.code:
        raise error
