"""Custom kinds for a while, on an API server that several test processes share."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from steps.kinds import Manifest
from tests.support.api_servers import DEFINITIONS, Api, Server, is_known, is_served, until

MINE = {"slipway.test/made-by": "tests"}  # label; a definition without it is the server's own and stays
SELECTOR = ",".join(f"{key}={value}" for key, value in MINE.items())


@contextmanager
def custom_kinds(server: Server, *definitions: Manifest, alone: bool = False) -> Iterator[list[str]]:
    """Names of those that were there before. The last process that leaves removes the definitions of the tests.

    `alone`: no other process has custom kinds meanwhile; waits for those that have.
    """
    with server.lock.open(encoding="utf-8") as lock, server.api() as api:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if alone:
            _remove(api)  # of a process that was killed, or that left while this one came
        answers = {one["metadata"]["name"]: _post(api, one) for one in definitions}
        until(lambda: all(_is_ready(api, name) for name in answers))
        try:
            yield [name for name, is_new in answers.items() if not is_new]
        finally:
            with suppress(BlockingIOError):  # another process is still there
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(api)


def _post(api: Api, definition: Manifest) -> bool:
    """True if it was not there before."""
    answer = api("POST", DEFINITIONS, {**definition, "metadata": {**definition["metadata"], "labels": MINE}})
    assert answer.status in (201, 409), answer
    return answer.status == 201


def _is_ready(api: Api, name: str) -> bool:
    found = api("GET", f"{DEFINITIONS}/{name}")
    assert found.status == 200, found
    conditions = found.content.get("status", {}).get("conditions") or ()  # null at first
    established = any((one["type"], one["status"]) == ("Established", "True") for one in conditions)
    return established and is_served(api, found.content)


def _remove(api: Api) -> None:
    """One by one: deleted as a collection, definitions leave their objects behind, for the next one of that name.

    The finalizer is added where one is deleted, and nowhere else.
    https://github.com/kubernetes/kubernetes/blob/v1.33.0/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/etcd.go
    """
    found = api("GET", DEFINITIONS, labelSelector=SELECTOR).content["items"]
    for one in found:
        assert api("DELETE", f"{DEFINITIONS}/{one['metadata']['name']}").status == 200
    until(lambda: api("GET", DEFINITIONS, labelSelector=SELECTOR).content["items"] == [])
    # Or the next discovery of the versions of a kind would return these.
    until(lambda: not any(is_known(api, one) for one in found))
