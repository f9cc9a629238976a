"""A model as a list of files with their hashes, and the digest that pins it.

The hub has no commit id for a whole repository in its listing (only one per file), so the list itself is the pin.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Self

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class MalformedDigestError(ValueError):
    """A malformed model digest."""


class ModelDigest(str):
    """`sha256:` and 64 lower-case hex digits. Raises MalformedDigestError for any other text, so none can exist."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _DIGEST.fullmatch(text):
            raise MalformedDigestError(
                f"{text!r} is no model digest, expected sha256: and 64 lower-case hex digits. "
                "Next: pass the digest that resolve-model printed"
            )
        return super().__new__(cls, text)

    @property
    def short(self) -> str:
        """The first 16 hex digits, which name folders."""
        return self.removeprefix("sha256:")[:16]


class UnsafePathError(ValueError):
    """A listed path that leaves the folder of the model, or that a file system cannot hold."""


@dataclass(frozen=True, order=True)
class ModelFile:
    path: str
    size: int  # bytes
    sha256: str  # 64 lower-case hex digits

    def __post_init__(self) -> None:
        refuse_unsafe(self.path)


@dataclass(frozen=True)
class Listing:
    """The files of one model in a hub, a bucket or a folder, sorted by path."""

    files: tuple[ModelFile, ...]

    @classmethod
    def of(cls, files: Iterable[ModelFile]) -> "Listing":
        return cls(tuple(sorted(files)))

    @cached_property
    def digest(self) -> ModelDigest:
        """SHA-256 of the sorted `path<TAB>size<TAB>sha256<LF>` lines."""
        lines = "".join(f"{file.path}\t{file.size}\t{file.sha256}\n" for file in self.files)
        return ModelDigest(f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def weight_bytes(self) -> int:
        """Bytes that an engine loads into GPU memory."""
        return sum(file.size for file in self.files if file.path.endswith((".safetensors", ".bin", ".pt")))


def refuse_unsafe(path: str) -> None:
    """Raise UnsafePathError for a path that is not a plain relative path inside the folder of the model."""
    parts = PurePosixPath(path).parts
    unsafe = (
        not path
        or path.startswith(("/", "~"))
        or "\\" in path
        or any(part in ("..", ".") for part in path.split("/"))
        or any(ord(character) < ord(" ") for character in path)
        or "/".join(parts) != path
        or parts[0] == ".slipway"
    )
    if unsafe:
        raise UnsafePathError(f"the path {path!r} is not a plain relative path inside the model")
