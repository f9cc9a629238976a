"""The scratch folder of one model revision, `<scratch>/<model digest 16>/`.

    <path of each file>              whole and verified, or absent
    .slipway/listing.json            files of the revision, verified by its digest
    .slipway/verified/<hash>.json    marker of a verified file: its SHA-256, size and time
    .slipway/transfer/<hash>.draft   a file in transfer, at its full size
    .slipway/transfer/<hash>.json    its resume point

No path of a model begins with `.slipway`, so these files never mix with those of the model.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from steps.errors import Blocked
from steps.model import Listing, ModelDigest, ModelFile, UnsafePathError
from steps.reconcile.report import size
from steps.release import content_hash

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Scratch:
    root: Path  # of this revision

    @classmethod
    def of(cls, folder: Path, model_digest: ModelDigest) -> "Scratch":
        """The folder of one revision."""
        return cls(folder / model_digest.short)

    def path(self, file: ModelFile) -> Path:
        return self.root / file.path

    def draft(self, file: ModelFile) -> Path:
        return self.root / ".slipway" / "transfer" / f"{content_hash(file.path, 16)}.draft"

    def resume_record(self, file: ModelFile) -> Path:
        return self.draft(file).with_suffix(".json")

    @property
    def listing_path(self) -> Path:
        return self.root / ".slipway" / "listing.json"

    def exists(self) -> bool:
        return self.root.exists()

    def listing(self) -> Listing | None:
        """The files of the revision; None for an absent or unreadable listing."""
        body = read(self.listing_path)
        if body is None:
            return None
        try:
            stored = _Listing.model_validate_json(body)
            return Listing.of(ModelFile(file.path, file.size, file.sha256) for file in stored.files)
        except (ValidationError, UnsafePathError):
            return None

    def write_listing(self, listing: Listing) -> None:
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in listing.files]
        write(self.listing_path, json.dumps({"files": files}, indent=1).encode())

    def is_verified(self, file: ModelFile) -> bool:
        """Whether the file was verified, and is unchanged since. Its bytes are not read."""
        body = read(self._marker(file))
        try:
            marker = _Marker.model_validate_json(body or b"")
            found = self.path(file).stat()
        except (ValidationError, OSError):
            return False
        return marker == _Marker(path=file.path, size=file.size, mtime_ns=found.st_mtime_ns, sha256=file.sha256) and (
            found.st_size == file.size
        )

    def mark_verified(self, file: ModelFile) -> None:
        """Mark the draft of a file as verified; it keeps its times when it is renamed."""
        with explained(self.draft(file), file.size):
            found = self.draft(file).stat()
        marker = _Marker(path=file.path, size=found.st_size, mtime_ns=found.st_mtime_ns, sha256=file.sha256)
        write(self._marker(file), marker.model_dump_json().encode())

    def remove_file(self, file: ModelFile) -> None:
        """Remove a file that differs from its marker: the next download fetches it again."""
        with explained(self.path(file), 0):
            self._marker(file).unlink(missing_ok=True)
            self.path(file).unlink(missing_ok=True)

    def allocated(self, file: ModelFile) -> int:
        """Bytes of the draft of a file."""
        try:
            return self.draft(file).stat().st_size
        except OSError:
            return 0

    def free(self) -> int:
        """Free bytes."""
        return _free(self.root)

    def remove(self) -> None:
        with explained(self.root, 0):
            shutil.rmtree(self.root)

    def _marker(self, file: ModelFile) -> Path:
        return self.root / ".slipway" / "verified" / f"{content_hash(file.path, 16)}.json"


@contextmanager
def explained(path: Path, needed: int) -> Iterator[None]:
    """Raises Blocked for an error of the file system; `needed` are the bytes to write."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Blocked(
                f"no space for {path}: {size(needed)} to write, {size(_free(path))} free",
                "raise transfer.scratch.size, or use transfer.mode: streamed, which needs no disk; then run again",
            ) from error
        raise Blocked(
            f"the scratch volume refuses {path}: {error.strerror or error}",
            "check that the scratch volume is mounted, healthy and writable; then run again",
        ) from error


def read(path: Path) -> bytes | None:
    """None only for an absent file."""
    with explained(path, 0):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def write(path: Path, body: bytes) -> None:
    """Replace a small file atomically."""
    with explained(path, len(body)):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".new")
        draft.write_bytes(body)
        draft.replace(path)


def _free(path: Path) -> int:
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, defer_build=True)


class _Marker(_Section):
    path: str
    size: int
    mtime_ns: int
    sha256: str


class _ListedFile(_Section):
    path: str
    size: int
    sha256: str


class _Listing(_Section):
    files: list[_ListedFile]
