"""CRC-64 of bytes that were summed in pieces: the object's sum from the sums of its parts, without reading them again.

The polynomial is the one of CRC-64/XZ, which OSS calls crc64ecma.
https://www.alibabacloud.com/help/en/oss/user-guide/check-data-transmission-integrity-by-using-crc-64
"""

from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0xC96C5795D7870F42  # reflected: bit 63 is the coefficient of x^0
_ONE = 1 << 63
_X8 = _ONE >> 8


def combine(pieces: Iterable[tuple[int, int]]) -> int:
    """CRC-64 of the pieces behind one another, each given as (CRC-64, bytes)."""
    total = 0
    for crc, size in pieces:
        total = _multiply(total, _shift(size)) ^ crc
    return total


def _multiply(left: int, right: int) -> int:
    """Product of two polynomials modulo the CRC polynomial."""
    product = 0
    while left:
        if left & _ONE:
            product ^= right
        left = (left << 1) & 0xFFFF_FFFF_FFFF_FFFF
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
    return product


@lru_cache(maxsize=1024)  # the parts of an upload have two sizes at most
def _shift(size: int) -> int:
    """x^(8 * size) modulo the CRC polynomial: what `size` more bytes do to a CRC."""
    result, power = _ONE, _X8
    while size:
        if size & 1:
            result = _multiply(result, power)
        power = _multiply(power, power)
        size >>= 1
    return result
