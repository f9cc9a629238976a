"""`python -m steps verify-model`: 0 for a revision that is as published, else a sentence for each difference."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.oss.store import OssStore
from steps.errors import Exit
from tests.support.commands import call, start, wait
from tests.transfer.test_end_to_end import BUCKET, FILES, Services, services

NAME = "model-00001-of-00003.safetensors"


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Services]:
    """A model that is whole in the bucket."""
    found = services(tmp_path)
    found.mirror()
    yield found
    found.hub.stop()
    found.bucket.stop()


def prefix(found: Services) -> str:
    return found.release().prefix


def flip(found: Services, path: str) -> None:
    """One bit of an object turns on the disk of OSS, which goes on claiming the CRC-64 of before."""
    with (found.folder / "bucket" / "objects" / BUCKET / prefix(found) / path).open("r+b") as file:
        file.seek(len(FILES[path]) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def replace(found: Services) -> None:
    """Another client wrote other bytes of the same length, so OSS reports their CRC-64."""
    found.store().put(f"{prefix(found)}/config.json", b"x" * len(FILES["config.json"]))


def remove(found: Services) -> None:
    found.store().delete([f"{prefix(found)}/{NAME}"])


def add(found: Services) -> None:
    found.store().put(f"{prefix(found)}/model-9.safetensors", b"of somebody else")


def _rewritten(store: OssStore, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads(store.get(key) or b"")
    change(manifest)
    store.delete([key])
    store.put(key, json.dumps(manifest).encode())


def change_sum(found: Services) -> None:
    _rewritten(found.store(), found.release().manifest_key, lambda it: it["crc64"].update({NAME: "1"}))


def change_file(found: Services) -> None:
    _rewritten(found.store(), found.release().manifest_key, lambda it: it["files"][NAME].update(sha256="0" * 64))


def remove_manifest(found: Services) -> None:
    found.store().delete([found.release().manifest_key])


DAMAGE: list[tuple[Callable[[Services], None], tuple[str, ...]]] = [
    (lambda found: flip(found, NAME), (f"{NAME} its bytes have the SHA-256", "expected", "CRC-64")),
    (lambda found: flip(found, "config.json"), ("config.json its bytes have the SHA-256", "expected", "CRC-64")),
    (replace, ("config.json OSS has the CRC-64", "its bytes have the SHA-256", "expected")),
    (remove, (f"{NAME} is absent. Next: ",)),
    (add, ("model-9.safetensors is not in the manifest, but readers of the prefix see it",)),
    (change_sum, (f"{NAME} OSS has the CRC-64", "expected 1")),
    (change_file, ("manifest.json cannot be trusted: it claims sha256:", "but its own files give sha256:")),
    (
        remove_manifest,
        ("has no manifest of sha256:", "does not exist for any reader", "writes it last. Next: submit a"),
    ),
]
NAMES = [
    "flipped large",
    "flipped small",
    "replaced",
    "missing",
    "extra",
    "changed sum",
    "changed manifest",
    "no manifest",
]


@pytest.mark.parametrize("more", [(), pytest.param(("--check",), marks=pytest.mark.exhaustive)], ids=["run", "check"])
@pytest.mark.parametrize(("damage", "sentence"), DAMAGE, ids=NAMES)
def test_each_difference_ends_with_11_and_says_what_was_found_and_what_was_expected(
    stored: Services, damage: Callable[[Services], None], sentence: tuple[str, ...], more: tuple[str, ...]
) -> None:
    damage(stored)
    stored.bucket.requests.clear()
    ended = call(stored, "verify-model", stored.release().model_digest, *more)
    assert ended.code == Exit.BLOCKED, ended.said
    (line,) = (line for line in ended.said.splitlines() if line.startswith("failed"))
    for part in sentence:
        assert part in line
    assert "RECAP verify-model: " in ended.said
    assert {request.partition(" ")[0] for request in stored.bucket.requests} <= {"GET", "HEAD"}


def test_every_difference_has_its_own_line(stored: Services) -> None:
    for damage in (replace, remove, add):
        damage(stored)
    ended = call(stored, "verify-model", stored.release().model_digest)
    assert sum(line.startswith("failed") for line in ended.said.splitlines()) == 3


@pytest.mark.parametrize("more", [(), ("--check",)], ids=["run", "check"])
def test_a_revision_as_published_ends_with_0_and_only_reads(stored: Services, more: tuple[str, ...]) -> None:
    stored.bucket.requests.clear()
    ended = wait(start(stored, "verify-model", stored.release().model_digest, *more))
    assert ended.code == Exit.DONE, ended.said
    assert f"6 of {len(FILES)} files as the manifest says, 13.6 MB read; written " in ended.said
    assert {request.partition(" ")[0] for request in stored.bucket.requests} <= {"GET", "HEAD"}


def test_what_to_do_about_a_damaged_file_mends_it(stored: Services) -> None:
    """The advice is followed to the letter: delete the manifest, then the object, and run again."""
    flip(stored, NAME)
    digest = stored.release().model_digest
    said = call(stored, "verify-model", digest).said
    assert "delete the manifest, then the object, and submit a run" in said
    stored.store().delete([stored.release().manifest_key])
    stored.store().delete([f"{prefix(stored)}/{NAME}"])
    assert stored.mirror().outputs.bytes_moved == len(FILES[NAME])
    assert call(stored, "verify-model", digest).code == Exit.DONE


@pytest.mark.parametrize("damage", [change_file, change_sum])
def test_what_to_do_about_a_changed_manifest_moves_nothing(
    stored: Services, damage: Callable[[Services], None]
) -> None:
    damage(stored)
    stored.store().delete([stored.release().manifest_key])
    assert stored.mirror().outputs.bytes_moved == 0
    assert call(stored, "verify-model", stored.release().model_digest).code == Exit.DONE
