"""Watch: the changes of a collection, as they happen.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.event_log import Event
from workflows.simulator.core.cluster.lists import Filter
from workflows.simulator.core.cluster.manifests import rendered
from workflows.simulator.core.cluster.store import ClusterStore

BOOKMARK_SECONDS = 30.0
LONGEST_SECONDS = 1800.0
_PATIENCE = 5.0  # seconds after which a quiet watch checks for its end

Change = dict[str, Any]


def changes(
    store: ClusterStore, chosen: Filter, query: Mapping[str, str], stopping: Callable[[], bool]
) -> Iterator[Change | None]:
    """Watch events in order, until `timeoutSeconds` are over or the server stops; None while no object changes.

    Raises ApiError at once for a query that cannot be read.
    """
    initial = _asked(query, "sendInitialEvents")
    revision, first = _start(store, chosen, query.get("resourceVersion", ""), initial=initial)
    if initial and _asked(query, "allowWatchBookmarks"):
        first.append(_bookmark(chosen, revision, {"k8s.io/initial-events-end": "true"}))
    return _stream(store, chosen, query, stopping, revision, first)


def _asked(query: Mapping[str, str], name: str) -> bool:
    return query.get(name) in ("true", "True", "1")


def _stream(
    store: ClusterStore,
    chosen: Filter,
    query: Mapping[str, str],
    stopping: Callable[[], bool],
    revision: int,
    first: list[Change],
) -> Iterator[Change | None]:
    bookmarks = _asked(query, "allowWatchBookmarks")
    until = time.monotonic() + float(query.get("timeoutSeconds") or LONGEST_SECONDS)
    yield from first
    next_bookmark = time.monotonic() + BOOKMARK_SECONDS
    while not stopping() and (left := until - time.monotonic()) > 0:
        try:
            news = store.log.after(revision, min(left, _PATIENCE), stopping)
        except ApiError as error:
            yield {"type": "ERROR", "object": error.body()}
            return
        yield from filter(None, (_seen(chosen, event) for event in news))
        revision = news[-1].revision if news else revision
        if not news:
            yield None
        if bookmarks and time.monotonic() >= next_bookmark:
            yield _bookmark(chosen, revision)
            next_bookmark = time.monotonic() + BOOKMARK_SECONDS
    if bookmarks and not stopping():
        yield _bookmark(chosen, revision)


def _start(store: ClusterStore, chosen: Filter, since: str, *, initial: bool) -> tuple[int, list[Change]]:
    """The first revision, and the existing objects if the client names no revision."""
    if since not in ("", "0") and not since.isdigit():
        message = f'resourceVersion: Invalid value: "{since}": strconv.ParseUint: parsing "{since}": invalid syntax'
        raise ApiError(500, "", message)
    if since not in ("", "0") and not initial:
        return int(since), []
    with store.exclusive():
        found = store.select(chosen.resource, chosen.namespace, chosen.labels)
        return store.revision, [{"type": "ADDED", "object": one} for one in found if chosen.matches(one)]


def _seen(chosen: Filter, event: Event) -> Change | None:
    """A change as this watch sees it: an object that starts or ceases to match comes or goes."""
    if event.key != chosen.resource.key:
        return None
    before = event.before is not None and chosen.matches(event.before)
    after = event.type != "DELETED" and chosen.matches(event.content)
    if not before and not after:
        return None
    kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
    return {"type": kind, "object": rendered(chosen.resource, event.content)}


def _bookmark(chosen: Filter, revision: int, annotations: Mapping[str, str] | None = None) -> Change:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    about = {"kind": chosen.resource.kind, "apiVersion": chosen.resource.api_version, "metadata": metadata}
    return {"type": "BOOKMARK", "object": about}
