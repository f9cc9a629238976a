# ruff: noqa: INP001  # programs by path, not a package
"""What a saved image holds, file by file: read by the tests, and by `images/build --twice`.

    python images/contents.py FIRST.tar SECOND.tar     say what differs; the exit code is 1 if anything does

Reads what `podman save`, `docker save` and `buildah push docker-archive:` write.
"""

import hashlib
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any

DELETED = ".wh."  # a name in a layer that hides the same name in the layers below
EMPTIED = ".wh..wh..opq"
SHOWN = 40  # differences that are printed
PAIR = 2
WHEN_BUILT = {"created", "history"}  # of the build, not of the content: a cached layer keeps its own


@dataclass(frozen=True)
class Entry:
    """One path of an image."""

    kind: str  # file, folder, link, other
    mode: int
    owner: tuple[int, int]
    mtime: int
    size: int
    sha256: str
    target: str  # of a link

    def differences(self, other: "Entry") -> str:
        pairs = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return ", ".join(f"{name} {_shown(name, a)} and {_shown(name, b)}" for name, a, b in pairs if a != b)


@dataclass(frozen=True)
class Image:
    config: dict[str, Any]  # https://github.com/opencontainers/image-spec/blob/main/config.md
    files: dict[str, Entry]  # by absolute path
    kept: dict[str, bytes]  # the bytes of the files that were asked for


def read(archive: Path, *, keep: tuple[str, ...] = ()) -> Image:
    """`keep`: ends of paths whose bytes are wanted. Raises KeyError for an archive that holds no image."""
    with tarfile.open(archive) as saved:
        manifest = json.load(_member(saved, "manifest.json"))[0]
        config = json.load(_member(saved, manifest["Config"]))
        files: dict[str, Entry] = {}
        kept: dict[str, bytes] = {}
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(saved, layer), mode="r:*") as content:
                _apply(content, files, kept, keep)
    return Image(config, files, {path: kept[path] for path in kept if path in files})


def differences(first: Image, second: Image) -> list[str]:
    """One line for each path and each setting that is not the same."""
    found = []
    for path in sorted(first.files.keys() | second.files.keys()):
        a, b = first.files.get(path), second.files.get(path)
        if a is None or b is None:
            found.append(f"{path}: only in the {'first' if a else 'second'}")
        elif a != b:
            found.append(f"{path}: {a.differences(b)}")
    for key in sorted((first.config.keys() | second.config.keys()) - WHEN_BUILT):
        if first.config.get(key) != second.config.get(key):
            found += [f"config.{key}: {first.config.get(key)} and {second.config.get(key)}"]
    return found


def _apply(content: tarfile.TarFile, files: dict[str, Entry], kept: dict[str, bytes], keep: tuple[str, ...]) -> None:
    for member in content:
        path = PurePosixPath("/", member.name.removeprefix("./"))
        if path.name == EMPTIED:
            _forget(files, str(path.parent), itself=False)
        elif path.name.startswith(DELETED):
            _forget(files, str(path.with_name(path.name.removeprefix(DELETED))), itself=True)
        else:
            data = _bytes(content, member)
            files[str(path)] = _entry(member, data)
            kept.pop(str(path), None)
            if keep and str(path).endswith(keep):
                kept[str(path)] = data


def _forget(files: dict[str, Entry], path: str, *, itself: bool) -> None:
    for gone in [name for name in files if name.startswith(path + "/") or (itself and name == path)]:
        del files[gone]


def _bytes(content: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = content.extractfile(member) if member.isreg() or member.islnk() else None
    return stream.read() if stream else b""


def _entry(member: tarfile.TarInfo, data: bytes) -> Entry:
    regular = member.isreg() or member.islnk()
    return Entry(
        kind="file" if regular else "folder" if member.isdir() else "link" if member.issym() else "other",
        mode=member.mode & 0o7777,
        owner=(member.uid, member.gid),
        mtime=int(member.mtime),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest() if regular else "",
        target=member.linkname if member.issym() else "",
    )


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    if stream is None:  # podman stores a layer that several images share as a link
        return _member(archive, str(PurePosixPath(name).parent / archive.getmember(name).linkname))
    return stream


def _shown(name: str, value: Any) -> str:
    return oct(value) if name == "mode" else str(value)[:12]


def _lines(first: Path, second: Path) -> Iterator[str]:
    images = read(first), read(second)
    found = differences(*images)
    yield from found[:SHOWN]
    yield f"{len(found)} differences, {len(images[0].files)} paths compared"


def main(arguments: list[str]) -> int:
    if len(arguments) != PAIR:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    lines = list(_lines(Path(arguments[0]), Path(arguments[1])))
    sys.stdout.write("\n".join(lines) + "\n")
    return int(len(lines) > 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
