"""Reading and writing a file past the page cache.

A model is larger than the memory of a pod, so its bytes leave the cache before the next read, and filling the cache
costs more CPU time than the rest of the transfer. The kernel requires address, offset and length in whole blocks
(https://man7.org/linux/man-pages/man2/open.2.html, O_DIRECT). The last bytes of a file go through the cache, and so do
all bytes on a file system without direct I/O.
"""

import contextlib
import errno
import mmap
import os
import threading
from pathlib import Path

BLOCK = 4096  # bytes; no device in use requires more
_DIRECT = getattr(os, "O_DIRECT", 0)  # 0 without direct I/O, as on macOS
_LARGE_PAGES: int | None = getattr(mmap, "MADV_HUGEPAGE", None)  # None without large pages


def buffer(size: int) -> mmap.mmap:
    """Memory for `size` bytes that begins at a block, in large pages if the kernel has them."""
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _LARGE_PAGES is not None:
        # Direct I/O pins every page of a buffer, each time. https://man7.org/linux/man-pages/man2/madvise.2.html
        with contextlib.suppress(OSError):  # a kernel without large pages is slower
            memory.madvise(_LARGE_PAGES)
    return memory


class DirectFile:
    """A file that is open twice: for whole blocks and for the rest. Safe to use from several threads."""

    def __init__(self, path: Path, flags: int) -> None:
        """Raises OSError."""
        self.descriptor = os.open(path, flags, 0o644)
        self._direct = _open_direct(path, flags)
        self._lock = threading.Lock()

    def read(self, body: memoryview, start: int) -> int:
        """Fill the beginning of `body`. Returns the count of bytes, 0 only at the end of the file."""
        blocks = self._blocks(body, start)
        if blocks:
            try:
                return os.preadv(self._direct, [body[:blocks]], start)
            except OSError as error:
                _raise_unless_unaligned(error)
        return os.preadv(self.descriptor, [body], start)

    def write(self, body: memoryview, start: int) -> int:
        """Write the beginning of `body`. Returns the count of bytes."""
        blocks = self._blocks(body, start)
        if blocks:
            try:
                return os.pwrite(self._direct, body[:blocks], start)
            except OSError as error:
                _raise_unless_unaligned(error)
        return os.pwrite(self.descriptor, body, start)

    def close(self) -> None:
        os.close(self.descriptor)
        with self._lock:
            if self._direct >= 0:
                os.close(self._direct)
                self._direct = -1

    def _blocks(self, body: memoryview, start: int) -> int:
        """Count of bytes at the beginning of `body` for direct I/O."""
        return len(body) // BLOCK * BLOCK if self._direct >= 0 and start % BLOCK == 0 else 0


def _raise_unless_unaligned(error: OSError) -> None:
    """EINVAL means that this address or file system requires the cache."""
    if error.errno != errno.EINVAL:
        raise error


def _open_direct(path: Path, flags: int) -> int:
    if not _DIRECT:
        return -1
    try:
        return os.open(path, (flags & ~(os.O_CREAT | os.O_TRUNC)) | _DIRECT)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP):
            return -1
        raise
