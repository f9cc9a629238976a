"""The embedded hub behaves like the real one, by the judgement of the real one's client."""

import filecmp
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from modelscope_hub import HubApi, NotExistError
from modelscope_hub.errors import AuthenticationError, PermissionDeniedError

from tests.support.hubs import MODEL, SHARD, get, serving
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import PortInUseError

TOKEN = "ms-not-a-secret"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "hub"


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with serving(folder) as hub:
        yield hub


def api(hub: Hub, page: str, **query: str) -> Any:
    answer = get(f"{hub.url}/api/v1/models/{MODEL}{page}?{urlencode(query)}")
    return answer.status, json.loads(answer.data)


def listed(hub: Hub, **query: str) -> dict[str, Any]:
    status, answer = api(hub, "/repo/files", Revision="master", **{"Recursive": "True", **query})
    assert status == 200
    return {entry["Path"]: entry for entry in answer["Data"]["Files"]}


def file_url(hub: Hub, path: str) -> str:
    return f"{hub.url}/api/v1/models/{MODEL}/repo?{urlencode({'Revision': 'master', 'FilePath': path})}"


def link(hub: Hub, path: str = SHARD) -> str:
    return str(get(file_url(hub, path)).headers["Location"])


def test_the_hubs_own_client_downloads_a_whole_model(hub: Hub, folder: Path, tmp_path: Path) -> None:
    HubApi(endpoint=hub.url).download_repo(MODEL, "model", local_dir=tmp_path / "model")
    names = sorted(path.name for path in (folder / MODEL).iterdir())
    same, different, missing = filecmp.cmpfiles(folder / MODEL, tmp_path / "model", names, shallow=False)
    assert (sorted(same), different, missing) == (names, [], [])


def test_the_hubs_own_client_resumes_a_file_that_is_there_in_part(hub: Hub, folder: Path, tmp_path: Path) -> None:
    whole = (folder / MODEL / SHARD).read_bytes()
    (tmp_path / f"{SHARD}.incomplete").write_bytes(whole[:100_000])
    HubApi(endpoint=hub.url).download_file(MODEL, "model", SHARD, local_dir=tmp_path)
    assert (tmp_path / SHARD).read_bytes() == whole
    assert [request.headers.get("range") for request in hub.received("GET /cdn")] == ["bytes=100000-"]


def test_the_hubs_own_client_learns_that_a_model_is_absent(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotExistError):
        HubApi(endpoint=hub.url).download_repo("slipway/absent", "model", local_dir=tmp_path / "model")


def test_the_hubs_own_client_reads_a_private_model_with_its_token_only(folder: Path, tmp_path: Path) -> None:
    with serving(folder, private={MODEL: TOKEN}) as hub:
        with pytest.raises(AuthenticationError):
            HubApi(endpoint=hub.url).list_repo_files(MODEL, "model")
        with pytest.raises(PermissionDeniedError):
            HubApi(endpoint=hub.url, token="ms-of-somebody-else").list_repo_files(MODEL, "model")
        assert len(list(HubApi(endpoint=hub.url, token=TOKEN).list_repo_files(MODEL, "model"))) == 10


def test_the_hubs_own_client_sees_the_branch_and_the_model(hub: Hub) -> None:
    client = HubApi(endpoint=hub.url)
    assert client.repo_exists(MODEL, "model")
    assert not client.repo_exists("slipway/absent", "model")
    assert [branch["Revision"] for branch in client.legacy.list_revisions(MODEL, "model")] == ["master"]


def test_a_listing_has_the_fields_of_the_real_one(hub: Hub) -> None:
    shard, readme = (listed(hub)[path] for path in (SHARD, "README.md"))
    assert set(shard) == {
        *("CommitMessage", "CommittedDate", "CommitterName", "InCheck", "IsLFS", "Mode"),
        *("Name", "Path", "Revision", "Sha256", "Size", "Type"),
    }
    assert (shard["IsLFS"], shard["Type"], len(shard["Revision"])) == (True, "blob", 40)
    assert (readme["IsLFS"], len(readme["Sha256"])) == (False, 64)


def test_folders_are_entries_and_can_be_listed_alone(folder: Path) -> None:
    with serving(folder) as hub:
        (folder / MODEL / "figures" / "large").mkdir(parents=True)
        (folder / MODEL / "figures" / "large" / "one.png").write_bytes(b"png")
        assert {path: entry["Type"] for path, entry in listed(hub, Root="figures").items()} == {
            "figures/large": "tree",
            "figures/large/one.png": "blob",
        }
        assert set(listed(hub, Root="figures", Recursive="False")) == {"figures/large"}


def test_a_listing_ends_at_3000_entries_without_a_word(folder: Path) -> None:
    with serving(folder) as hub:
        for number in range(3001):
            (folder / MODEL / f"{number:04}.txt").touch()
        assert len(listed(hub)) == 3000


def test_an_edited_file_is_another_revision_at_once(hub: Hub, folder: Path) -> None:
    before = listed(hub)["README.md"]
    (folder / MODEL / "README.md").write_text("edited by a person", encoding="utf-8")
    after = listed(hub)["README.md"]
    assert before["Sha256"] != after["Sha256"]
    assert before["Revision"] != after["Revision"]


def test_a_draft_of_a_model_is_not_served(hub: Hub, folder: Path) -> None:
    (folder / MODEL).rename((folder / MODEL).with_name(".Qwen3-small.draft"))
    answer = get(f"{hub.url}/api/v1/models/slipway/.Qwen3-small.draft/repo/files?Revision=master")
    assert answer.status == 404


def test_an_absent_model_and_an_absent_revision_are_a_404_in_json(hub: Hub) -> None:
    absent = get(f"{hub.url}/api/v1/models/slipway/absent/repo/files?Revision=master")
    status, answer = api(hub, "/repo/files", Revision="v9")
    assert (absent.status, json.loads(absent.data)["Code"]) == (404, 10010205001)
    assert (status, answer["Success"]) == (404, False)


@pytest.mark.parametrize("path", ["absent.json", "../../.hashes.json", "/etc/hostname", ""])
def test_an_absent_file_is_a_200_with_an_error(hub: Hub, path: str) -> None:
    answer = get(file_url(hub, path))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert (json.loads(answer.data)["Code"], json.loads(answer.data)["Success"]) == (10990101007, False)


def test_a_small_file_answers_a_bounded_range_with_200_and_overlooks_an_open_one(hub: Hub, folder: Path) -> None:
    whole = (folder / MODEL / "config.json").read_bytes()
    bounded, unbounded = (get(file_url(hub, "config.json"), Range=asked) for asked in ("bytes=10-19", "bytes=10-"))
    assert (bounded.status, bounded.headers["Content-Range"]) == (200, f"bytes 10-19/{len(whole)}")
    assert bounded.data == whole[10:20]
    assert (unbounded.status, unbounded.data, "Content-Range" in unbounded.headers) == (200, whole, False)


def test_an_lfs_file_is_redirected_to_a_link_that_contains_its_hash(hub: Hub) -> None:
    answer, sha256 = get(file_url(hub, SHARD)), listed(hub)[SHARD]["Sha256"]
    assert answer.status == 302
    assert answer.headers["X-Linked-ETag"] == f'"{sha256}"'
    assert f"/cdn/prod/lfs-objects/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}?" in answer.headers["Location"]
    assert answer.headers["Location"].startswith(hub.cdn_url)


def test_the_page_for_people_leads_to_the_same_files(hub: Hub, folder: Path) -> None:
    assert get(f"{hub.url}/{MODEL}/resolve/master/README.md").data == (folder / MODEL / "README.md").read_bytes()
    assert get(f"{hub.url}/{MODEL}/resolve/master/{SHARD}").status == 302


@pytest.mark.parametrize(
    ("asked", "cut"), [("bytes=0-0", slice(0, 1)), ("bytes=5-99", slice(5, 100)), ("bytes=-7", slice(-7, None))]
)
def test_a_link_answers_ranges(hub: Hub, folder: Path, asked: str, cut: slice) -> None:
    answer = get(link(hub), Range=asked)
    assert (answer.status, answer.data) == (206, (folder / MODEL / SHARD).read_bytes()[cut])


def test_a_link_refuses_a_range_behind_the_end(hub: Hub, folder: Path) -> None:
    size = (folder / MODEL / SHARD).stat().st_size
    answer = get(link(hub), Range=f"bytes={size}-{size + 9}")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_bytes_at_the_end_of_a_large_sparse_file_come_at_once(folder: Path) -> None:
    with serving(folder) as hub:
        with (folder / MODEL / "sparse.bin").open("wb") as sparse:
            sparse.truncate(200_000_000)
            sparse.seek(-3, 2)
            sparse.write(b"end")
        answer = get(link(hub, "sparse.bin"), Range="bytes=199999990-199999999")
        assert answer.data == bytes(7) + b"end"


def test_a_link_ends(folder: Path) -> None:
    now = [1_000_000.0]
    with serving(folder, link_seconds=60, clock=lambda: now[0]) as hub:
        address = link(hub)
        assert get(address, Range="bytes=0-9").status == 206
        now[0] += 61
        assert get(address, Range="bytes=0-9").status == 403


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
        lambda url: url.partition("&auth_key=")[0],
        lambda url: url.replace("/cdn/", "/internal/cn-hangzhou/cdn/"),
    ],
    ids=["wrong signature", "no signature", "another path"],
)
def test_a_spoiled_link_is_refused(hub: Hub, spoil: Callable[[str], str]) -> None:
    assert get(spoil(link(hub)), Range="bytes=0-9").status == 403


def test_a_link_to_content_that_is_gone_is_refused(hub: Hub, folder: Path) -> None:
    address = link(hub)
    (folder / MODEL / SHARD).write_bytes(b"edited")
    assert get(address, Range="bytes=0-9").status == 403


@pytest.mark.parametrize("header", [{"Authorization": f"Bearer {TOKEN}"}, {"Cookie": f"m_session_id={TOKEN}"}])
def test_the_cdn_refuses_credentials_of_the_hub(hub: Hub, header: dict[str, str]) -> None:
    assert get(link(hub), Range="bytes=0-9", **header).status == 403


def test_a_region_gives_an_internal_link(hub: Hub) -> None:
    address = get(file_url(hub, SHARD), x_aliyun_region_id="cn-hangzhou").headers["Location"]
    assert "/internal/cn-hangzhou/cdn/" in address
    assert get(address, Range="bytes=0-9").status == 206


def test_a_port_in_use_is_said_clearly(hub: Hub, folder: Path) -> None:
    port = int(hub.url.rpartition(":")[2])
    with pytest.raises(PortInUseError, match=str(port)):
        Hub(folder, port=port)
