"""ModelStore over oss2.

oss2's own CRC-64 is off: it runs at a tenth of the speed of the wire, and far slower where it was installed without a
compiler. The same sum is computed here with fastcrc over the same buffers, and compared with what OSS computed.
https://github.com/aliyun/aliyun-oss-python-sdk/issues/76
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import fastcrc
import oss2
from oss2.exceptions import ClientError, NoSuchKey, NoSuchUpload, NotFound, ServerError
from oss2.models import PartInfo

from steps.adapters import oss_answers
from steps.adapters.oss_copy import copy_parts
from steps.adapters.oss_credentials import Credentials
from steps.adapters.oss_errors import ChecksumError, Task
from steps.adapters.oss_retries import Patience, Retries
from steps.adapters.oss_session import TIMEOUTS, Session
from steps.engine.errors import Blocked, TransientError
from steps.ports import StoredObject, StoredPart, Upload

Result = TypeVar("Result")
PAGE = 1000  # the most that OSS lists, and deletes, at once
MAX_COPY = 1 << 30  # bytes; larger objects are copied part by part
NO_METADATA: Mapping[str, str] = {}


class OssStore:
    """One bucket. Every method tries again while that can help, and raises Blocked or TransientError after that."""

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

    def head(self, key: str) -> StoredObject | None:
        def request() -> StoredObject | None:
            try:
                return oss_answers.stored_object(key, self._bucket.head_object(key))
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
            _compare(answer.server_crc, fastcrc.crc64.xz(body), answer.request_id)
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
                oss_answers.check_range(answer, start, len(buffer))
                oss_answers.fill(answer.resp.response.raw, buffer, self._patience)

        self._run(self._task(f"read bytes {start} to {last} of", "oss:GetObject", key), request)

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        metadata: Mapping[str, str] | None = None,
        forbid_overwrite: bool = False,
    ) -> StoredObject | None:
        headers = oss_answers.metadata_headers(metadata or NO_METADATA)
        if forbid_overwrite:
            headers["x-oss-forbid-overwrite"] = "true"
        expected = fastcrc.crc64.xz(body)
        wanted = StoredObject(key, len(body), "", expected, dict(metadata or NO_METADATA))
        retries = self._retries(self._task("write", "oss:PutObject", key))

        def request() -> StoredObject | None:
            try:
                answer = self._bucket.put_object(key, _sendable(body), headers=headers)
            except ServerError as error:
                if error.code != "FileAlreadyExists":
                    raise
                # The answer to an earlier attempt may be what got lost.
                return self._same(wanted) if retries.attempts > 1 else None
            self._compare_written(key, answer, expected)
            return oss_answers.written(wanted, answer)

        return retries.run(request)

    def copy(self, source: StoredObject, key: str, *, metadata: Mapping[str, str] | None = None) -> StoredObject:
        if source.crc64 is None:
            source = self._present(source.key)
        wanted = StoredObject(
            key, source.size, "", source.crc64, dict(source.metadata if metadata is None else metadata)
        )
        if source.size > MAX_COPY:
            return copy_parts(self, source, wanted)
        headers = oss_answers.metadata_headers(wanted.metadata)
        if metadata is not None:
            headers["x-oss-metadata-directive"] = "REPLACE"

        def request() -> StoredObject:
            answer = self._bucket.copy_object(self._bucket_name, source.key, key, headers=headers)
            self._compare_written(key, answer, source.crc64 or 0)
            return oss_answers.written(wanted, answer)

        return self._run(self._task(f"copy oss://{self._bucket_name}/{source.key} to", "oss:PutObject", key), request)

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

    def start_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> Upload:
        headers = oss_answers.metadata_headers(metadata or NO_METADATA)
        answer = self._run(
            self._task("start the upload of", "oss:PutObject", key),
            lambda: self._bucket.init_multipart_upload(key, headers=headers),
        )
        return Upload(key, answer.upload_id)

    def upload_part(self, upload: Upload, number: int, body: memoryview) -> StoredPart:
        expected = fastcrc.crc64.xz(body)

        def request() -> StoredPart:
            answer = self._bucket.upload_part(upload.key, upload.id, number, _sendable(body))
            _compare(answer.crc, expected, answer.request_id)
            return StoredPart(number, len(body), answer.etag, expected)

        return self._run(self._task(f"upload part {number} of", "oss:PutObject", upload.key), request)

    def copy_part(self, upload: Upload, number: int, source: StoredObject, start: int, size: int) -> StoredPart:
        """Make a part of a slice of another object of this bucket; its CRC-64 is what OSS says."""

        def request() -> StoredPart:
            span = (start, start + size - 1)
            answer = self._bucket.upload_part_copy(self._bucket_name, source.key, span, upload.key, upload.id, number)
            return StoredPart(number, size, answer.etag, answer.crc)

        return self._run(self._task(f"copy part {number} of", "oss:PutObject", upload.key), request)

    def parts(self, upload: Upload) -> list[StoredPart] | None:
        found: list[StoredPart] = []
        marker, more = "", True
        while more:
            page = self._parts_page(upload, marker)
            if page is None:
                return None
            found += oss_answers.stored_parts(page.resp.body)
            marker, more = page.next_marker, page.is_truncated
        return found

    def _parts_page(self, upload: Upload, marker: str) -> Any:
        def request() -> Any:
            try:
                return self._bucket.list_parts(upload.key, upload.id, marker=marker, max_parts=PAGE)
            except NoSuchUpload:
                return None

        return self._run(self._task("list the parts of", "oss:ListParts", upload.key), request)

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject:
        parts = sorted(parts, key=lambda part: part.number)
        size = sum(part.size for part in parts)
        infos = [PartInfo(part.number, part.etag) for part in parts]

        def request() -> bool:
            try:
                self._bucket.complete_multipart_upload(upload.key, upload.id, infos)
            except NoSuchUpload:
                # Either the answer to an earlier attempt got lost, or somebody aborted the upload.
                return False
            return True

        completed = self._run(self._task("complete the upload of", "oss:PutObject", upload.key), request)
        found = self.head(upload.key)
        if found and (found.size, found.crc64) == (size, crc64):
            return found
        if completed:
            self.delete((upload.key,))
            raise Blocked(
                f"oss://{self._bucket_name}/{upload.key} was made of {size} bytes with CRC-64 {crc64}, but OSS has "
                f"{_measure(found)}; it was deleted again",
                "run it again; if it stays so, suspect the memory of this node",
            )
        raise TransientError(
            f"the upload {upload.id} of oss://{self._bucket_name}/{upload.key} is gone: somebody aborted it, or a "
            "lifecycle rule did",
            "run it again, the file starts over; let no rule abort uploads that are younger than a day",
        )

    def abort_upload(self, upload: Upload) -> None:
        def request() -> None:
            try:
                self._bucket.abort_multipart_upload(upload.key, upload.id)
            except NoSuchUpload:
                return

        self._run(self._task("abort the upload of", "oss:AbortMultipartUpload", upload.key), request)

    def uploads(self, prefix: str) -> list[Upload]:
        found: list[Upload] = []
        markers, more = ("", ""), True
        while more:
            page = self._run(
                self._task("list the uploads below", "oss:ListMultipartUploads", prefix),
                partial(
                    self._bucket.list_multipart_uploads,
                    prefix,
                    key_marker=markers[0],
                    upload_id_marker=markers[1],
                    max_uploads=PAGE,
                ),
            )
            found += [Upload(upload.key, upload.upload_id) for upload in page.upload_list]
            markers, more = (page.next_key_marker, page.next_upload_id_marker), page.is_truncated
        return found

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
        _compare(found, expected, answer.request_id)

    def _run(self, task: Task, request: Callable[[], Result]) -> Result:
        return self._retries(task).run(request)

    def _retries(self, task: Task) -> Retries:
        return Retries(self._patience, self._credentials, task)

    def _task(self, doing: str, action: str, key: str) -> Task:
        return Task(doing, action, self._bucket_name, key, self._region, self._endpoint)


def _check_absent(error: NotFound) -> None:
    """Only an object may be absent; anything else that is not there is an error.

    An answer to HEAD has no body, and without the header x-oss-err it has no code either.
    """
    if not isinstance(error, NoSuchKey) and error.code:
        raise error


def _compare(found: int | None, expected: int, request_id: str) -> None:
    if found != expected:
        raise ChecksumError(found, expected, request_id)


def _sendable(body: bytes | memoryview) -> bytes | memoryview:
    """Requests sends a memoryview as it is, in one call; an empty one it would send in chunks."""
    return body if len(body) else b""


def _measure(found: StoredObject | None) -> str:
    return f"{found.size} bytes with CRC-64 {found.crc64}" if found else "no such object"
