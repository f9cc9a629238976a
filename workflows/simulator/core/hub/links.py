"""Links that end: signed like type A of https://www.alibabacloud.com/help/en/cdn/user-guide/type-a-signing."""

import hashlib
import secrets
import uuid
from collections.abc import Callable


class Links:
    """Signs paths for `seconds`, and knows its own signatures again."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._secret = secrets.token_hex(16)

    def sign(self, path: str) -> str:
        """The value of `auth_key` for a path without its query."""
        stem = f"{int(self._clock() + self.seconds)}-{uuid.uuid4().hex}-0"
        return f"{stem}-{self._hash(path, stem)}"

    def valid(self, path: str, key: str) -> bool:
        stem, _, found = key.rpartition("-")
        expiry = stem.partition("-")[0]
        if not secrets.compare_digest(found, self._hash(path, stem)):
            return False
        return self._clock() < int(expiry)

    def _hash(self, path: str, stem: str) -> str:
        return hashlib.md5(f"{path}-{stem}-{self._secret}".encode(), usedforsecurity=False).hexdigest()
