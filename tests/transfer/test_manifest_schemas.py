"""The manifest is read for as long as a bucket keeps it: by this Slipway, by later and earlier ones, and by SGLang."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from steps.transfer import manifest
from steps.transfer.manifest import CorruptManifest
from tests.support.samples import RECORDED

FOLDER = RECORDED / "manifests"
RELEASED = (FOLDER / "schema-1.json").read_bytes()
LATER = (FOLDER / "schema-2-with-more-fields.json").read_bytes()
SUMS = {
    "README.md": ("3f266a8905732f61ebc9a983ba5808e8315c6c46d46af3d4d660222a3ca59b51", 9),
    "config.json": ("86d49337f51b848491007eba678aaafb2f0960510a11980abdb063bb3b0d8530", 23),
    "tokenizer/vocab.json": ("f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310", 8),
    "模型.safetensors": ("f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b", 64),
}


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(RELEASED), **fields}).encode()


def without(field: str, body: bytes = RELEASED) -> bytes:
    return json.dumps({key: value for key, value in json.loads(body).items() if key != field}).encode()


def test_a_manifest_of_each_released_schema_is_read_and_written_as_it_was() -> None:
    found = manifest.decode(RELEASED)
    assert {file.path: (file.sha256, file.size) for file in found.files} == SUMS
    assert found.files[1].crc64 == 4747575644842706126
    assert (found.total_bytes, found.model_digest) == (104, found.listing.digest)
    assert manifest.encode(found) == RELEASED


def test_a_later_schema_is_read_as_long_as_it_has_what_is_needed() -> None:
    assert manifest.decode(LATER) == manifest.decode(RELEASED)
    with pytest.raises(CorruptManifest, match="crc64: Field required; its schema is 2, and this Slipway knows 1"):
        manifest.decode(without("crc64", LATER))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (RELEASED[:-40], "the object: Invalid JSON"),
        (b"[]", "the object"),
        (without("schema"), "schema: Field required$"),
        (changed(schema=True), "schema: "),
        (changed(schema="1"), "schema: "),
        (changed(schema=0), "schema: "),
        (changed(files=[{"path": "config.json", "size": 23}]), "files: "),
        (changed(files={"config.json": {"size": 23, "sha256": "A" * 64}}), "files.config.json.sha256: "),
        (changed(crc64={"config.json": "1"}), "only one of its fields files and crc64 has 'README.md'"),
        (changed(modelDigest="abc"), "it claims abc, but its own files give sha256:"),
        (changed(totalBytes=1), "it totals 1 bytes, but its own files 104"),
    ],
)
def test_a_manifest_that_is_broken_is_named_with_what_is_wrong_in_it(body: bytes, words: str) -> None:
    with pytest.raises(CorruptManifest, match=words):
        manifest.decode(body)


@dataclass
class FileInfo:
    """SGLang 0.5.23, srt/utils/model_file_verifier.py:26-29."""

    sha256: str
    size: int


def as_sglang_reads(body: bytes) -> dict[str, FileInfo]:
    """SGLang 0.5.23, srt/utils/model_file_verifier.py:36-50 and 141-144: any other field of a file is a TypeError."""
    data = json.loads(body.decode())
    assert "checksums" not in data  # SGLang would take it for an older form, and ignore `files`
    return {path: FileInfo(**entry) for path, entry in data["files"].items()}


def test_sglang_reads_the_manifest_as_a_file_of_checksums() -> None:
    assert {path: (found.sha256, found.size) for path, found in as_sglang_reads(RELEASED).items()} == SUMS
    with pytest.raises(TypeError):  # why a CRC has a map of its own, and a later schema must not add to an entry
        as_sglang_reads(LATER)


def test_the_manifest_is_ascii_since_sglang_reads_it_in_the_encoding_of_its_locale() -> None:
    """SGLang 0.5.23, srt/utils/model_file_verifier.py:143: `read_text()` without an encoding."""
    assert RELEASED.isascii()
    assert manifest.encode(manifest.decode(LATER)).isascii()
