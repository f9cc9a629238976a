"""The keys of the bucket: one access key that lasts, and temporary keys (STS) that end."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    id: str
    secret: str
    token: str = ""  # of a temporary key
    expires: float | None = None  # seconds since 1970; None lasts


class KeyRing:
    """Keys by id; safe to use from several threads."""

    def __init__(self, *keys: Key) -> None:
        self._lock = threading.Lock()
        self._keys = {key.id: key for key in keys}

    def add(self, key: Key) -> None:
        with self._lock:
            self._keys[key.id] = key

    def find(self, key_id: str) -> Key | None:
        with self._lock:
            return self._keys.get(key_id)

    def forget(self) -> None:
        """Every temporary key is unknown from now on."""
        with self._lock:
            self._keys = {key.id: key for key in self._keys.values() if not key.token}

    def expire(self, now: float) -> None:
        """End every temporary key at `now`."""
        with self._lock:
            temporary = [key for key in self._keys.values() if key.token]
            self._keys |= {key.id: Key(key.id, key.secret, key.token, now) for key in temporary}
