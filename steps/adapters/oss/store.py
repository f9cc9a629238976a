"""ModelStore over oss2.

oss2's own CRC-64 is off: it runs at a tenth of the speed of the wire, and far slower where it was installed without a
compiler. The same sum is computed here with fastcrc over the same buffers, and compared with what OSS computed.
https://github.com/aliyun/aliyun-oss-python-sdk/issues/76
"""

from collections.abc import Mapping

from steps.adapters.oss import answers
from steps.adapters.oss.copy import copy_parts
from steps.adapters.oss.uploads import OssUploads
from steps.ports.oss import StoredObject

MAX_COPY = 1 << 30  # bytes; larger objects are copied part by part


class OssStore(OssUploads):
    """One bucket. Every method tries again while that can help, and raises Blocked or TransientError after that."""

    def copy(self, source: StoredObject, key: str, *, metadata: Mapping[str, str] | None = None) -> StoredObject:
        if source.crc64 is None:
            source = self._present(source.key)
        wanted = StoredObject(
            key, source.size, "", source.crc64, dict(source.metadata if metadata is None else metadata)
        )
        if source.size > MAX_COPY:
            return copy_parts(self, source, wanted)
        headers = answers.metadata_headers(wanted.metadata)
        if metadata is not None:
            headers["x-oss-metadata-directive"] = "REPLACE"

        def request() -> StoredObject:
            answer = self._bucket.copy_object(self._bucket_name, source.key, key, headers=headers)
            self._compare_written(key, answer, source.crc64 or 0)
            return answers.written(wanted, answer)

        return self._run(self._task(f"copy oss://{self._bucket_name}/{source.key} to", "oss:PutObject", key), request)
