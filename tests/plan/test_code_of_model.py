"""A refresh that brings other code is refused before any byte moves, until a person approves its digest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from steps.check_platform import CheckPlatform
from steps.kinds import Kind, Manifest, Ref
from steps.objects import record
from steps.objects.record import Entry, Record
from steps.ports.kubernetes import Permission
from steps.reconcile.converge import Past
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.hashing import crc
from steps.transfer.manifest import ManifestFile
from tests.support.group_objects import group_of, live
from tests.support.memory_ports import MemorySource, MemoryStore, listing_of
from tests.support.samples import release

CONFIG = json.dumps({"architectures": ["Qwen3ForCausalLM"], "auto_map": {"AutoModel": "modeling.Old"}}).encode()
SERVED = {
    "config.json": CONFIG,
    "model.safetensors": b"weights",
    "modeling.py": b"class Old: ...",
    "README.md": b"hello",
}
NO_CODE = {"model.safetensors": b"other weights", "README.md": b"hello again", "tokenizer.json": b"{}"}


@dataclass(frozen=True)
class Recorded:
    """A cluster that holds the release record, and nothing else."""

    current: Release | None

    def get(self, ref: Ref) -> Manifest | None:
        service = (self.current or release()).service
        if self.current is None or ref != record.record_ref(service):
            return None
        return live(record.record(service, Record(Entry.of(self.current, [group_of(self.current)]))))

    def select(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, part: Any = None
    ) -> list[Manifest]:
        return []

    def serves(self, kind: Kind) -> bool:
        return True

    def allows(self, permission: Permission) -> bool:
        return True


def of(files: Mapping[str, bytes], *overrides: str) -> Release:
    return release(*overrides, digest=listing_of(files).digest)


def bucket_with(files: Mapping[str, bytes]) -> MemoryStore:
    store, made = MemoryStore(), of(files)
    for path, body in files.items():
        store.put(f"{made.prefix}/{path}", body)
    listed = [
        ManifestFile(file.path, file.size, file.sha256, crc(memoryview(files[file.path])))
        for file in listing_of(files).files
    ]
    store.put(made.manifest_key, manifest.encode(manifest.compose(made, listed, 0.0)))
    return store


def found(
    files: Mapping[str, bytes],
    *overrides: str,
    served: Mapping[str, bytes] | None = SERVED,
    source: MemorySource | None = None,
) -> tuple[list[str], list[str]]:
    """Faults and what is well, of this check, for a hub that lists `files` now."""
    current = of(served) if served else None
    step = CheckPlatform(
        of(files, *overrides),
        Recorded(current),  # type: ignore[arg-type]  # nothing is written
        bucket_with(served or {}),
        source or MemorySource(dict(files)),
    )
    plan = step.plan(step.observe(Past()))
    return tuple([line for line in lines if line.startswith("MOD01")] for lines in (plan.failed, plan.ok))  # type: ignore[return-value]  # two


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"modeling.py": b"import os"}, "modeling.py"),
        ({"tools/more.PY": b"import os"}, "tools/more.PY"),
        ({"pytorch_model.bin": b"pickle"}, "pytorch_model.bin"),
        ({"a.pt": b"1", "b.pth": b"2", "c.ckpt": b"3", "d.pkl": b"4"}, "a.pt, b.pth, c.ckpt, d.pkl"),
        (
            {"config.json": json.dumps({"auto_map": {"AutoModel": "stranger/repo--modeling.New"}}).encode()},
            "config.json",
        ),
        ({"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": "modeling.Old"}}'}, "tokenizer_config.json"),
        ({"config.json": b"no JSON"}, "config.json"),
        ({f"{number}.py": b"" for number in range(7)}, "0.py, 1.py, 2.py, 3.py, 4.py and 2 more"),
    ],
)
def test_code_that_does_not_serve_yet_is_refused_by_name(changed: dict[str, bytes], named: str) -> None:
    wanted = SERVED | NO_CODE | changed
    (fault,), _ = found(wanted)
    assert f"found code that is not what serves: {named}; needed" in fault
    assert f"model.digest: {listing_of(wanted).digest}. Next: read those files" in fault


@pytest.mark.parametrize("changed", [{}, NO_CODE, {"config.json": CONFIG[:-1] + b', "eos_token_id": 7}'}])
def test_other_weights_and_texts_go_on_without_anybody(changed: dict[str, bytes]) -> None:
    faults, well = found(SERVED | changed)
    assert (faults, len(well)) == ([], 1)


def test_code_that_is_gone_needs_no_approval() -> None:
    assert found({path: body for path, body in SERVED.items() if not path.endswith(".py")})[0] == []


def test_an_approved_digest_goes_on_and_says_what_was_approved() -> None:
    wanted = SERVED | {"modeling.py": b"import os"}
    faults, (well,) = found(wanted, f"model.digest={listing_of(wanted).digest}")
    assert (faults, well) == ([], "MOD01 model.digest approves the code in modeling.py")


def test_a_first_release_is_the_decision_of_a_person() -> None:
    faults, (well,) = found(SERVED, served=None)
    assert (faults, well) == ([], "MOD01 no release serves yet whose code could be compared")


def test_another_model_in_the_document_is_the_decision_of_a_person() -> None:
    faults, (well,) = found(SERVED | {"new.py": b""}, "model.id=Qwen/Qwen3-14B")
    assert faults == []
    assert well.endswith("does not hold what serves: the document names another model or bucket")


def test_a_configuration_that_is_not_what_the_hub_lists_counts_as_code() -> None:
    wanted = SERVED | {"config.json": b'{"auto_map": null}'}
    lying = MemorySource(wanted | {"config.json": b'{"auto_map": 1234}'}, listed=listing_of(wanted))
    (fault,), _ = found(wanted, source=lying)
    assert "config.json" in fault
