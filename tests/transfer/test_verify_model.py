"""verify-model reads a stored revision again without changes, and reports differences from its manifest."""

from collections.abc import Callable

import pytest

from steps.errors import Blocked
from steps.mirror_model import MirrorModel
from steps.reconcile.converge import Outcome, converge
from steps.release import Release
from steps.transfer.bucket import object_key
from steps.transfer.layout import MIB
from steps.verify_model import VerifyModel
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.memory_ports import MemorySource, MemoryStore, content, listing_of
from tests.support.samples import service

DOCUMENT = service("transfer.mode=streamed", "transfer.partSize=1Mi", "transfer.workers=3")
FILES = {
    "config.json": content("config.json", 700),
    "empty.txt": b"",
    "model-1.safetensors": content("model-1.safetensors", 3 * MIB + 17),
    "sub/model-2.safetensors": content("model-2.safetensors", 2 * MIB),
}
RELEASE = Release(DOCUMENT, listing_of(FILES).digest)
KEY = object_key(RELEASE, "model-1.safetensors")


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    converge(MirrorModel(RELEASE, MemorySource(FILES), found, FakeClock()), RecordingReport(), FakeClock())
    return found


def verify(store: MemoryStore, report: RecordingReport | None = None) -> Outcome:
    return converge(VerifyModel(RELEASE, store), report or RecordingReport(), FakeClock())


def test_a_stored_revision_is_read_to_its_last_byte_and_nothing_is_changed(store: MemoryStore) -> None:
    before = {key: entry.body for key, entry in store.objects.items()}
    store.requests.clear()
    report = RecordingReport()
    outcome = verify(store, report)
    assert outcome.changes == ()
    assert (outcome.outputs.files_different, outcome.outputs.bytes_read) == (0, sum(map(len, FILES.values())))
    assert store.requests.keys() <= {"get", "scan", "head", "read"}
    assert {key: entry.body for key, entry in store.objects.items()} == before
    assert "4 of 4 files as the manifest says, 5.2 MB read" in report.of("ok")[0]


def _flip(store: MemoryStore) -> None:
    body = bytearray(store.objects[KEY].body)
    body[2 * MIB] ^= 1
    store.objects[KEY].body = bytes(body)


def _cut(store: MemoryStore) -> None:
    store.objects[KEY].body = store.objects[KEY].body[:-1]


def _delete(store: MemoryStore) -> None:
    del store.objects[KEY]


def _add(store: MemoryStore) -> None:
    store.put(f"{RELEASE.prefix}/model-9.safetensors", b"not of this model")


def _no_manifest(store: MemoryStore) -> None:
    del store.objects[RELEASE.manifest_key]


def _torn_manifest(store: MemoryStore) -> None:
    store.objects[RELEASE.manifest_key].body = store.objects[RELEASE.manifest_key].body[:-200]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_flip, r"model-1.safetensors .*its bytes have the SHA-256 [0-9a-f]{64}, expected"),
        (_cut, r"model-1.safetensors has 3145744 bytes \(3.1 MB\), expected 3145745; OSS has the CRC-64"),
        (_delete, r"model-1.safetensors is absent"),
        (_add, r"model-9.safetensors is not in the manifest, but readers of the prefix see it"),
        (_no_manifest, r"has no manifest of sha256:.*, so this revision does not exist for any reader"),
        (_torn_manifest, r"cannot be trusted"),
    ],
)
def test_what_differs_is_said_and_blocks(store: MemoryStore, damage: Callable[[MemoryStore], None], says: str) -> None:
    damage(store)
    before = dict(store.objects)
    with pytest.raises(Blocked, match=says):
        verify(store)
    assert store.objects == before


def test_every_difference_is_told_at_once(store: MemoryStore) -> None:
    _flip(store)
    del store.objects[object_key(RELEASE, "config.json")]
    report = RecordingReport()
    with pytest.raises(Blocked):
        verify(store, report)
    told = " ".join(report.of("failed"))
    assert "model-1.safetensors" in told
    assert "config.json is absent" in told
