"""SHA-256 with a state that can be saved in the middle of a file, and CRC-64 as OSS computes it.

hashlib cannot save its state. Between two blocks of 64 bytes the state of SHA-256 is eight words and the count of bytes
(FIPS 180-4, section 6.2) in every library, so the saved state is independent of machine and version. libcrypto, the
base of hashlib itself, keeps those words in a structure of its public header (SHA256_CTX in openssl/sha.h), and has the
same speed. It is used only if it agrees with hashlib on a sum that was interrupted in the middle; otherwise hashlib is
used, and an interrupted file starts over.
"""

import ctypes
import functools
import hashlib
import importlib.util
from typing import Final, Protocol

from fastcrc import crc64

BLOCK = 64  # bytes
_LIBRARIES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib")
_SYMBOLS = ("SHA256_Init", "SHA256_Update", "SHA256_Final")


class Sha256(Protocol):
    def update(self, data: memoryview) -> None:
        """Add the bytes of a writable buffer."""
        ...

    def hexdigest(self) -> str:
        """The sum of all bytes; the last call."""
        ...

    def state(self) -> str:
        """The eight words in hex, or an empty string if the state cannot be saved here."""
        ...


def crc(data: memoryview, previous: int = 0) -> int:
    """CRC-64/XZ of `data` after bytes with the CRC `previous`. OSS: x-oss-hash-crc64ecma."""
    return int(crc64.xz(data, previous))


def joined(first: int, second: int, length: int) -> int:
    """The CRC-64/XZ of some bytes followed by `length` more, from the CRCs of both, without reading any of them.

    The first is shifted past zeros in place of the others, like in `crc32_combine` of zlib.
    https://github.com/madler/zlib/blob/v1.3.1/crc32.c
    """
    if not first:
        return second
    return _product(_shift(length), first) ^ second


def sha256() -> Sha256:
    library = _library()
    return _CryptoSha256(library) if library else _PlainSha256()


def resumed(state: str, length: int) -> Sha256 | None:
    """The sum after `length` bytes with the saved `state`; None if it cannot be continued here."""
    if length == 0:
        return sha256()
    library = _library()
    if library is None or len(state) != 64 or length % BLOCK:  # noqa: PLR2004  # eight words are 64 hex digits
        return None
    return _CryptoSha256(library, state, length)


# Polynomials modulo the one of CRC-64/XZ, as numbers with the coefficient of 1 in the highest bit.
_POLYNOMIAL = 0xC96C5795D7870F42
_ONE = 1 << 63


def _product(one: int, other: int) -> int:
    found = 0
    while one:
        if one & _ONE:
            found ^= other
        one = (one << 1) & (2 * _ONE - 1)
        other = (other >> 1) ^ (_POLYNOMIAL if other & 1 else 0)
    return found


@functools.lru_cache(maxsize=1024)
def _shift(length: int) -> int:
    """The power of x for the bits of `length` bytes. The parts of a file have one length, except the last."""
    found, power = _ONE, _ONE >> 8
    while length:
        if length & 1:
            found = _product(found, power)
        power = _product(power, power)
        length >>= 1
    return found


class _PlainSha256:
    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        self._sum.update(data)

    def hexdigest(self) -> str:
        return self._sum.hexdigest()

    def state(self) -> str:
        return ""


class _Context(ctypes.Structure):
    """SHA256_CTX. https://github.com/openssl/openssl/blob/openssl-3.0/include/openssl/sha.h"""

    _fields_ = (
        ("words", ctypes.c_uint32 * 8),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("data", ctypes.c_uint32 * 16),
        ("pending", ctypes.c_uint),
        ("digest_length", ctypes.c_uint),
    )


class _CryptoSha256:
    def __init__(self, library: ctypes.CDLL, state: str = "", length: int = 0) -> None:
        self._library: Final = library
        self._context: Final = _Context()
        self._pointer: Final = ctypes.byref(self._context)
        library.SHA256_Init(self._pointer)
        if state:
            for index in range(8):
                self._context.words[index] = int(state[index * 8 : index * 8 + 8], 16)
            self._context.bits_low = (length * 8) & 0xFFFFFFFF
            self._context.bits_high = (length * 8) >> 32

    def update(self, data: memoryview) -> None:
        if data.nbytes:
            # ctypes releases the interpreter during the call, so several files hash on several cores.
            content = (ctypes.c_char * data.nbytes).from_buffer(data)
            self._library.SHA256_Update(self._pointer, content, ctypes.c_size_t(data.nbytes))

    def hexdigest(self) -> str:
        digest = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(digest, self._pointer)
        return digest.raw.hex()

    def state(self) -> str:
        if self._context.pending:
            return ""
        return "".join(f"{word:08x}" for word in self._context.words)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The libcrypto of hashlib, or one of the system; None if none agrees with hashlib."""
    module = importlib.util.find_spec("_hashlib")
    for name in (module.origin if module else None, *_LIBRARIES):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if all(hasattr(library, symbol) for symbol in _SYMBOLS) and _agrees_with_hashlib(library):
            return library
    return None


def _agrees_with_hashlib(library: ctypes.CDLL) -> bool:
    sample = bytearray(range(256)) * 3
    head, tail = memoryview(sample)[: 2 * BLOCK], memoryview(sample)[2 * BLOCK :]
    first = _CryptoSha256(library)
    first.update(head)
    second = _CryptoSha256(library, first.state(), len(head))
    second.update(tail)
    return second.hexdigest() == hashlib.sha256(sample).hexdigest()
