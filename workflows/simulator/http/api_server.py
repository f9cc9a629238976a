"""The HTTP side of the embedded Kubernetes API: authenticate, route, answer, refuse with the errors of Kubernetes."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from werkzeug import Request, Response

from workflows.simulator.core.cluster.discovery import document
from workflows.simulator.core.cluster.errors import ApiError, bad_request, forbidden, not_found
from workflows.simulator.core.cluster.lists import Filter, listing
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.resources import REVIEWS
from workflows.simulator.core.cluster.scales import scale_of, scaling
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.core.cluster.targets import Target, find, unknown
from workflows.simulator.core.cluster.watches import changes
from workflows.simulator.core.cluster.writes import APPLY, Options, Writes, parsed_json
from workflows.simulator.faults import request_faults
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_proxy import ProxyTarget, forward, port_number, split_name
from workflows.simulator.http.server import LOOPBACK, HangUp, LoopbackServer, connection_of, json_reply, target_of, text

Denied = Callable[[str, str, str, str], bool]
"""(verb, resource as in RBAC rules such as `pods/log`, namespace, name) -> does the API refuse it with 403?"""

PodLog = Callable[[str, str, str, bool], str | None]
"""(namespace, pod, container, previous) -> its log; None if that container has not started, or there was none."""

_CLOSING_SECONDS: Final = 10.0  # for all watches together to end in good order
_TRUE: Final = ("1", "true", "True")
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_FAULTS: Final[Mapping[str, ApiError]] = {
    request_faults.SERVER_ERROR: ApiError(500, "InternalError", "Internal error occurred: etcdserver: leader changed"),
    request_faults.UNAVAILABLE: ApiError(
        503, "ServiceUnavailable", "the server is currently unable to handle the request"
    ),
    request_faults.THROTTLED: ApiError(429, "TooManyRequests", "too many requests, please try again later"),
    request_faults.FORBIDDEN: ApiError(403, "Forbidden", 'forbidden: User "slipway-embedded" cannot do this'),
}


def _nothing_listens(_kind: str, _namespace: str, _name: str, _port: int) -> None:
    return None


def nothing_denied(_verb: str, _resource: str, _namespace: str, _name: str) -> bool:
    return False


def _no_log(_namespace: str, _pod: str, _container: str, _previous: bool) -> None:
    return None


class _OpenWatches:
    """Counts the watches that are being answered."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify_all()

    def wait_for_end(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._count, seconds)


class ApiServer:
    """Serves a store on loopback, from `start` to `stop`."""

    def __init__(  # noqa: PLR0913  # keywords: one for each thing that a rehearsal varies
        self,
        store: ClusterStore,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        proxy_target: ProxyTarget = _nothing_listens,
        denied: Denied = nothing_denied,
        pod_log: PodLog = _no_log,
        faults: RequestFaults | None = None,
        token: str = "",
        reviewed: Denied | None = None,
    ) -> None:
        """With `token`, clients without it get 401. `reviewed` answers access reviews where they differ from `denied`.

        Raises PortInUseError.
        """
        self._store = store
        self._writes = Writes(store)
        self._proxy_target = proxy_target
        self._denied = denied
        self._reviewed = reviewed or denied
        self._log_of = pod_log
        self._faults = faults or RequestFaults()
        self._token = token
        self._stopping = threading.Event()
        self._watches = _OpenWatches()
        self._server = LoopbackServer(self._serve, port, host)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Stop answering; watches end in good order, except those of a client that does not read."""
        self._stopping.set()
        self._store.log.wake()
        self._watches.wait_for_end(_CLOSING_SECONDS)
        self._server.stop()

    def write_kubeconfig(self, path: Path) -> None:
        """Write a kubeconfig for this server, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        name = "slipway-embedded"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": self._token} if self._token else {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        draft = path.with_name(path.name + ".draft")
        draft.write_text(json.dumps(config, indent=2), encoding="utf-8")
        draft.replace(path)

    def _serve(self, request: Request) -> Response:
        kind = self._faults.next(
            f"{request.method} {target_of(request)}",
            (*_FAULTS, request_faults.DROP, request_faults.LOST_ANSWER),
        )
        if kind == request_faults.DROP:
            raise HangUp
        try:
            if error := _FAULTS.get(kind or ""):
                raise error
            response = self._answer(request)
        except ApiError as refused:
            throttled = refused.reason == "TooManyRequests"
            headers = {"Retry-After": str(self._faults.retry_after)} if throttled else {}
            response = json_reply(refused.body(), refused.status, headers)
        except (AttributeError, KeyError, TypeError, ValueError) as bug:
            # An object of an unforeseen shape. Real servers answer so after a panic, too.
            response = json_reply(ApiError(500, "InternalError", f"Internal error occurred: {bug!r}").body(), 500)
        if kind == request_faults.LOST_ANSWER:
            raise HangUp
        return response

    def _answer(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self._token and (scheme.lower(), token) != ("bearer", self._token):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return self._route(request, target_of(request).partition("?")[0])

    def _route(self, request: Request, path: str) -> Response:
        if path in ("/healthz", "/livez", "/readyz"):
            return text("ok")
        found = document(self._store.registry, path) if request.method == "GET" else None
        if found:
            return json_reply(found)
        target = find(self._store.registry, path) if path.startswith(("/api/", "/apis/")) else None
        return self._answer_about(request, target) if target else text("404 page not found\n", 404)

    def _answer_about(self, request: Request, target: Target) -> Response:
        verb = _verb(request, target)
        self._check_permission(verb, target)
        if target.subresource == "proxy":
            return self._proxy(request, target)
        if target.subresource == "log":
            return self._pod_log(request, target)
        if target.resource in REVIEWS and verb == "create":
            return self._review(parsed_json(request.get_data()))
        return _ANSWERS[verb](self, request, target)

    def _check_permission(self, verb: str, target: Target) -> None:
        if not self._denied(verb, target.rule, target.namespace, target.name):
            return
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        what = f'resource "{target.rule}" in API group "{target.resource.group}"'
        raise forbidden(target.resource, target.name, f'User "slipway-embedded" cannot {verb} {what} {where}')

    def get(self, _request: Request, target: Target) -> Response:
        live = self._live(target)
        if target.subresource and target.subresource not in target.resource.subresources:
            raise unknown()
        if target.subresource == "scale":
            live = scale_of(live, scaling(self._store, target.resource))
        return json_reply(live)

    def list(self, request: Request, target: Target) -> Response:
        chosen = Filter.of(target.resource, target.namespace, request.args)
        return json_reply(listing(self._store, chosen, request.args))

    def watch(self, request: Request, target: Target) -> Response:
        chosen = Filter.of(target.resource, target.namespace, request.args)
        lines = changes(self._store, chosen, request.args, self._stopping.is_set)
        response = Response(_streamed(lines, connection_of(request)), content_type="application/json")
        self._watches.add(1)
        response.call_on_close(lambda: self._watches.add(-1))
        return response

    def create(self, request: Request, target: Target) -> Response:
        return json_reply(self._writes.create(target, parsed_json(request.get_data()), _options(request)), 201)

    def update(self, request: Request, target: Target) -> Response:
        return json_reply(self._writes.replace(target, parsed_json(request.get_data()), _options(request)))

    def patch(self, request: Request, target: Target) -> Response:
        creates = request.mimetype == APPLY and self._store.get(target.resource, target.name, target.namespace) is None
        if creates and self._denied("create", target.rule, target.namespace, target.name):
            # An apply that would create is authorized for `create`, too, with the name. The refusal gives no reason.
            raise forbidden(target.resource, target.name, "")
        created, content = self._writes.patch(target, request.mimetype, request.get_data(), _options(request))
        return json_reply(content, 201 if created else 200)

    def delete(self, request: Request, target: Target) -> Response:
        gone, last = self._writes.delete(target, _delete_options(request), _options(request))
        return json_reply(_done(target, last) if gone else last)

    def delete_collection(self, request: Request, target: Target) -> Response:
        found = listing(self._store, Filter.of(target.resource, target.namespace, request.args), {})
        for one in found["items"]:
            metadata = one["metadata"]
            each = Target(target.resource, metadata.get("namespace", ""), metadata["name"])
            self._writes.delete(each, _delete_options(request), _options(request))
        return json_reply(found)

    def _review(self, review: Manifest) -> Response:
        """May the caller do this, or the user that a SubjectAccessReview names?"""
        asked = (review.get("spec") or {}).get("resourceAttributes") or {}
        below = f"/{asked['subresource']}" if asked.get("subresource") else ""
        rule = asked.get("resource", "") + below
        denied = self._reviewed(asked.get("verb", ""), rule, asked.get("namespace", ""), asked.get("name", ""))
        return json_reply({**review, "metadata": {}, "status": {"allowed": not denied}}, 201)

    def _pod_log(self, request: Request, target: Target) -> Response:
        name = _container(self._live(target), request.args.get("container", ""))
        previous = request.args.get("previous") in _TRUE
        log = self._log_of(target.namespace, target.name, name, previous)
        if log is None:
            raise bad_request(
                f'previous terminated container "{name}" in pod "{target.name}" not found'
                if previous
                else f'container "{name}" in pod "{target.name}" is waiting to start: ContainerCreating'
            )
        if "tailLines" in request.args:
            count = int(request.args["tailLines"])
            log = "".join(log.splitlines(keepends=True)[-count:]) if count else ""
        return text(log)

    def _proxy(self, request: Request, target: Target) -> Response:
        kind = target.resource.plural
        name, port = split_name(target.name)
        number = port_number(kind, self._live(Target(target.resource, target.namespace, name)), port)
        address = self._proxy_target(kind, target.namespace, name, number)
        if address is None:
            raise ApiError(503, "ServiceUnavailable", f'no endpoints available for {kind[:-1]} "{name}" port {number}')
        return forward(address, request)

    def _live(self, target: Target) -> Manifest:
        live = self._store.get(target.resource, target.name, target.namespace)
        if live is None:
            raise not_found(target.resource, target.name)
        return live


_ANSWERS: Final[Mapping[str, Callable[[ApiServer, Request, Target], Response]]] = {
    "get": ApiServer.get,
    "list": ApiServer.list,
    "watch": ApiServer.watch,
    "create": ApiServer.create,
    "update": ApiServer.update,
    "patch": ApiServer.patch,
    "delete": ApiServer.delete,
    "deletecollection": ApiServer.delete_collection,
}


def _verb(request: Request, target: Target) -> str:
    """The verb of RBAC. Raises ApiError 405 for a method that does not fit."""
    if request.method == "GET":
        return "get" if target.name else "watch" if request.args.get("watch") in _TRUE else "list"
    if request.method == "DELETE":
        return "delete" if target.name else "deletecollection"
    fits = (request.method == "POST") != bool(target.name) or target.subresource == "proxy"
    if not fits or request.method not in _VERBS:
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return _VERBS[request.method]


def _options(request: Request) -> Options:
    return Options.of(request.args, request.headers.get("User-Agent", ""))


def _delete_options(request: Request) -> dict[str, Any]:
    body = request.get_data()
    sent = parsed_json(body) if body else {}
    if not isinstance(sent, dict):
        raise bad_request("the body of a DELETE is a DeleteOptions object")
    if "propagationPolicy" in request.args:
        sent["propagationPolicy"] = request.args["propagationPolicy"]
    if "gracePeriodSeconds" in request.args:
        sent["gracePeriodSeconds"] = int(request.args["gracePeriodSeconds"])
    return sent


def _done(target: Target, last: Mapping[str, Any]) -> dict[str, Any]:
    details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural}
    details["uid"] = last["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def _container(pod: Manifest, name: str) -> str:
    names = [one["name"] for kind in ("initContainers", "containers") for one in pod["spec"].get(kind) or []]
    main = [one["name"] for one in pod["spec"]["containers"]]
    pod_name = pod["metadata"]["name"]
    if name and name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    if not name and len(main) > 1:
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(main)}]")
    return name or str(main[0])


def _streamed(lines: Iterable[Mapping[str, Any] | None], connection: socket.socket) -> Iterator[bytes]:
    """One JSON object a line; ends early if the client closes its connection while no object changes."""
    yield b""  # the headers leave before the first change
    for line in lines:
        if line is not None:
            yield json.dumps(line, separators=(",", ":")).encode() + b"\n"
        elif _is_closed(connection):
            raise HangUp


def _is_closed(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
