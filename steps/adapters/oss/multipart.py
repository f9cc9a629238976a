"""Multipart uploads of a bucket."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import fastcrc
from oss2.exceptions import NoSuchUpload
from oss2.models import PartInfo

from steps.adapters.oss import answers
from steps.adapters.oss.client import OssClient
from steps.adapters.oss.objects import PAGE, OssObjects
from steps.errors import Blocked, TransientError
from steps.ports.oss import Metadata, StoredObject, StoredPart, Upload

PART_OF_COPY = 256 << 20  # bytes: OSS answers before a read times out; 10,000 of them exceed any model file


class OssMultipart:
    def __init__(self, client: OssClient, objects: OssObjects) -> None:
        self._client = client
        self._api = client.api
        self._objects = objects

    def start_upload(self, key: str, *, metadata: Metadata | None = None) -> Upload:
        headers = answers.metadata_headers(metadata)
        answer = self._client.request(
            self._client.operation("start the upload of", "oss:PutObject", key),
            lambda: self._api.init_multipart_upload(key, headers=headers),
        )
        return Upload(key, answer.upload_id)

    def upload_part(self, upload: Upload, number: int, body: memoryview, *, crc64: int | None = None) -> StoredPart:
        expected = fastcrc.crc64.xz(body) if crc64 is None else crc64

        def call() -> StoredPart:
            answer = self._api.upload_part(upload.key, upload.id, number, answers.sendable(body))
            answers.compare(answer.crc, expected, answer.request_id)
            return StoredPart(number, len(body), answer.etag, expected)

        return self._client.request(
            self._client.operation(f"upload part {number} of", "oss:PutObject", upload.key), call
        )

    def parts(self, upload: Upload) -> list[StoredPart] | None:
        found: list[StoredPart] = []
        marker, more = "", True
        while more:
            page = self._parts_page(upload, marker)
            if page is None:
                return None
            found += answers.stored_parts(page.resp.body)
            marker, more = page.next_marker, page.is_truncated
        return found

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject:
        parts = sorted(parts, key=lambda part: part.number)
        size = sum(part.size for part in parts)
        infos = [PartInfo(part.number, part.etag) for part in parts]

        def call() -> bool:
            try:
                self._api.complete_multipart_upload(upload.key, upload.id, infos)
            except NoSuchUpload:
                # Completed by an earlier attempt with a lost answer, or aborted by another client.
                return False
            return True

        completed = self._client.request(
            self._client.operation("complete the upload of", "oss:PutObject", upload.key), call
        )
        found = self._objects.head(upload.key)
        if found and (found.size, found.crc64) == (size, crc64):
            return found
        if completed:
            self._objects.delete((upload.key,))
            raise Blocked(
                f"oss://{self._client.bucket}/{upload.key} was made of {size} bytes with CRC-64 {crc64}, but OSS has "
                f"{_measure(found)}; the object was deleted",
                "run it again; if the error stays, suspect the memory of this node",
            )
        raise TransientError(
            f"the upload {upload.id} of oss://{self._client.bucket}/{upload.key} is gone: another client or a "
            "lifecycle rule aborted it",
            "run it again, the file starts over; no lifecycle rule may abort uploads that are younger than a day",
        )

    def abort_upload(self, upload: Upload) -> None:
        def call() -> None:
            try:
                self._api.abort_multipart_upload(upload.key, upload.id)
            except NoSuchUpload:
                return

        self._client.request(
            self._client.operation("abort the upload of", "oss:AbortMultipartUpload", upload.key), call
        )

    def uploads(self, prefix: str) -> list[Upload]:
        found: list[Upload] = []
        markers, more = ("", ""), True
        while more:
            page = self._client.request(
                self._client.operation("list the uploads below", "oss:ListMultipartUploads", prefix),
                partial(
                    self._api.list_multipart_uploads,
                    prefix,
                    key_marker=markers[0],
                    upload_id_marker=markers[1],
                    max_uploads=PAGE,
                ),
            )
            found += [Upload(upload.key, upload.upload_id) for upload in page.upload_list]
            markers, more = (page.next_key_marker, page.next_upload_id_marker), page.is_truncated
        return found

    def copy(self, source: StoredObject, copy: StoredObject, part_size: int = PART_OF_COPY) -> StoredObject:
        """Make `copy` from the bytes of `source` inside OSS, and compare the CRC-64. A failed upload is aborted.

        https://www.alibabacloud.com/help/en/oss/developer-reference/uploadpartcopy
        """
        upload = self.start_upload(copy.key, metadata=copy.metadata)
        try:
            parts = [
                self._copy_part(upload, number, source, (start, min(start + part_size, source.size) - 1))
                for number, start in enumerate(range(0, source.size, part_size), start=1)
            ]
            return self.complete_upload(upload, parts, crc64=source.crc64 or 0)
        except BaseException:
            self.abort_upload(upload)
            raise

    def _copy_part(self, upload: Upload, number: int, source: StoredObject, span: tuple[int, int]) -> StoredPart:
        """`span` is the first and the last byte. The CRC-64 is the one of OSS."""
        first, last = span

        def call() -> StoredPart:
            answer = self._api.upload_part_copy(self._client.bucket, source.key, span, upload.key, upload.id, number)
            return StoredPart(number, last - first + 1, answer.etag, answer.crc)

        return self._client.request(self._client.operation(f"copy part {number} of", "oss:PutObject", upload.key), call)

    def _parts_page(self, upload: Upload, marker: str) -> Any:
        def call() -> Any:
            try:
                return self._api.list_parts(upload.key, upload.id, marker=marker, max_parts=PAGE)
            except NoSuchUpload:
                return None

        return self._client.request(self._client.operation("list the parts of", "oss:ListParts", upload.key), call)


def _measure(found: StoredObject | None) -> str:
    return f"{found.size} bytes with CRC-64 {found.crc64}" if found else "no such object"
