"""Multipart uploads of a bucket."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import fastcrc
from oss2.exceptions import NoSuchUpload
from oss2.models import PartInfo

from steps.adapters.oss import answers
from steps.adapters.oss.access import NO_METADATA, PAGE
from steps.adapters.oss.objects import OssObjects
from steps.errors import Blocked, TransientError
from steps.ports.oss import StoredObject, StoredPart, Upload


class OssUploads(OssObjects):
    def start_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> Upload:
        headers = answers.metadata_headers(metadata or NO_METADATA)
        answer = self._run(
            self._task("start the upload of", "oss:PutObject", key),
            lambda: self._bucket.init_multipart_upload(key, headers=headers),
        )
        return Upload(key, answer.upload_id)

    def upload_part(self, upload: Upload, number: int, body: memoryview, *, crc64: int | None = None) -> StoredPart:
        expected = fastcrc.crc64.xz(body) if crc64 is None else crc64

        def request() -> StoredPart:
            answer = self._bucket.upload_part(upload.key, upload.id, number, answers.sendable(body))
            answers.compare(answer.crc, expected, answer.request_id)
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
            found += answers.stored_parts(page.resp.body)
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


def _measure(found: StoredObject | None) -> str:
    return f"{found.size} bytes with CRC-64 {found.crc64}" if found else "no such object"
