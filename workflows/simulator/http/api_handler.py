"""One request to the embedded Kubernetes API: authenticate, route, answer, and refuse in Kubernetes' words."""

import io
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from workflows.simulator.core.cluster.discovery import document
from workflows.simulator.core.cluster.errors import ApiError, bad_request, forbidden, not_found
from workflows.simulator.core.cluster.lists import Filter, listing
from workflows.simulator.core.cluster.resources import REVIEWS
from workflows.simulator.core.cluster.scales import scale_of, scaling
from workflows.simulator.core.cluster.targets import Target, find, unknown
from workflows.simulator.core.cluster.watches import changes
from workflows.simulator.core.cluster.writes import APPLY, Options, parsed_json
from workflows.simulator.faults import request_faults
from workflows.simulator.http.api_bodies import BodyHandler
from workflows.simulator.http.api_serving import Served

_TRUE = ("1", "true", "True")
_HEALTH = ("/healthz", "/livez", "/readyz")
_FAULTS: Mapping[str, ApiError] = {
    request_faults.SERVER_ERROR: ApiError(500, "InternalError", "Internal error occurred: etcdserver: leader changed"),
    request_faults.UNAVAILABLE: ApiError(
        503, "ServiceUnavailable", "the server is currently unable to handle the request"
    ),
    request_faults.THROTTLED: ApiError(429, "TooManyRequests", "too many requests, please try again later"),
    request_faults.FORBIDDEN: ApiError(403, "Forbidden", "forbidden: the script says that you cannot do this"),
}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class ApiHandler(BodyHandler):
    """Answers one connection."""

    served: ClassVar[Served]

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # http.server wants these names

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.body = b"" if "/proxy" in parts.path else self.read_body()
        try:
            self._stumble()
            self._authenticate()
            self._route(parts.path)
        except ApiError as error:
            self._refuse(error)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # An object of a shape that no rule foresaw. Real servers answer so after a panic, too.
            self._refuse(ApiError(500, "InternalError", f"Internal error occurred: {error!r}"))

    def _refuse(self, error: ApiError) -> None:
        # What is left of a body that nobody read would be taken for the next request.
        unread = {"Connection": "close"} if "/proxy" in self.path else {}
        self.send_json(error.status, error.body(), self._retry_after(error) | unread)

    def _stumble(self) -> None:
        """Fail on purpose, if this request is planned to."""
        possible = (*_FAULTS, request_faults.DROP, request_faults.LOST_ANSWER)
        kind = self.served.faults.next(f"{self.command} {self.path}", possible)
        if kind in (request_faults.DROP, request_faults.LOST_ANSWER):
            self.wfile = io.BytesIO()  # nobody hears the answer
            self.close_connection = True
        if kind == request_faults.DROP:
            raise _FAULTS[request_faults.UNAVAILABLE]
        if kind:
            raise _FAULTS[kind]

    def _retry_after(self, error: ApiError) -> dict[str, str]:
        return {"Retry-After": str(self.served.faults.retry_after)} if error.reason == "TooManyRequests" else {}

    def _authenticate(self) -> None:
        expected = self.served.token
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if expected and (scheme.lower(), token) != ("bearer", expected):
            raise ApiError(401, "Unauthorized", "Unauthorized")

    def _route(self, path: str) -> None:
        if path in _HEALTH:
            self.send_body(200, b"ok", "text/plain; charset=utf-8")
            return
        found = document(self.served.store.registry, path) if self.command == "GET" else None
        if found:
            self.send_json(200, found)
            return
        target = find(self.served.store.registry, path) if path.startswith(("/api/", "/apis/")) else None
        if target is None:
            self.send_body(404, b"404 page not found\n", "text/plain; charset=utf-8")
            return
        self._serve(target)

    def _serve(self, target: Target) -> None:
        verb = self._verb(target)
        self._check_rights(verb, target)
        if target.subresource == "proxy":
            self.proxy(target)
        elif target.subresource == "log":
            self.pod_log(target)
        elif target.resource in REVIEWS and verb == "create":
            self._review()
        else:
            getattr(self, f"_do_{verb}")(target)

    def _verb(self, target: Target) -> str:
        """The verb of RBAC. Raises ApiError 405 for a method that does not fit."""
        if self.command == "GET":
            return "get" if target.name else "watch" if self.query.get("watch") in _TRUE else "list"
        if self.command == "DELETE":
            return "delete" if target.name else "deletecollection"
        fits = (self.command == "POST") != bool(target.name) or target.subresource == "proxy"
        if not fits:
            message = "the server does not allow this method on the requested resource"
            raise ApiError(405, "MethodNotAllowed", message)
        return _VERBS[self.command]

    def _check_rights(self, verb: str, target: Target) -> None:
        if not self.served.denied(verb, target.rule, target.namespace, target.name):
            return
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        what = f'resource "{target.rule}" in API group "{target.resource.group}"'
        raise forbidden(target.resource, target.name, f'User "slipway-embedded" cannot {verb} {what} {where}')

    def _check_creation(self, target: Target) -> None:
        """An apply that would create is authorized for `create`, too, with the name. The refusal gives no reason."""
        if self.served.denied("create", target.rule, target.namespace, target.name):
            raise forbidden(target.resource, target.name, "")

    def _do_get(self, target: Target) -> None:
        live = self.served.store.get(target.resource, target.name, target.namespace)
        if target.subresource and target.subresource not in target.resource.subresources:
            raise unknown()
        if live is None:
            raise not_found(target.resource, target.name)
        if target.subresource == "scale":
            live = scale_of(live, scaling(self.served.store, target.resource))
        self.send_json(200, live)

    def _do_list(self, target: Target) -> None:
        chosen = Filter.of(target.resource, target.namespace, self.query)
        self.send_json(200, listing(self.served.store, chosen, self.query))

    def _do_watch(self, target: Target) -> None:
        chosen = Filter.of(target.resource, target.namespace, self.query)
        with self.served.watches:
            self.stream_json(changes(self.served.store, chosen, self.query, self.served.stopping.is_set))

    def _do_create(self, target: Target) -> None:
        self.send_json(201, self.served.writes.create(target, parsed_json(self.body), self._options()))

    def _do_update(self, target: Target) -> None:
        self.send_json(200, self.served.writes.replace(target, parsed_json(self.body), self._options()))

    def _do_patch(self, target: Target) -> None:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == APPLY and self.served.store.get(target.resource, target.name, target.namespace) is None:
            self._check_creation(target)
        created, content = self.served.writes.patch(target, kind, self.body, self._options())
        self.send_json(201 if created else 200, content)

    def _do_delete(self, target: Target) -> None:
        gone, last = self.served.writes.delete(target, self._delete_options(), self._options())
        self.send_json(200, _done(target, last) if gone else last)

    def _do_deletecollection(self, target: Target) -> None:
        chosen = Filter.of(target.resource, target.namespace, self.query)
        found = listing(self.served.store, chosen, {})
        for one in found["items"]:
            metadata = one["metadata"]
            each = Target(target.resource, metadata.get("namespace", ""), metadata["name"])
            self.served.writes.delete(each, self._delete_options(), self._options())
        self.send_json(200, found)

    def _review(self) -> None:
        """May the caller do this, or the user that a SubjectAccessReview names?"""
        review = parsed_json(self.body)
        asked = (review.get("spec") or {}).get("resourceAttributes") or {}
        below = f"/{asked['subresource']}" if asked.get("subresource") else ""
        rule = asked.get("resource", "") + below
        decide = self.served.reviewed or self.served.denied
        denied = decide(asked.get("verb", ""), rule, asked.get("namespace", ""), asked.get("name", ""))
        self.send_json(201, {**review, "metadata": {}, "status": {"allowed": not denied}})

    def _options(self) -> Options:
        return Options.of(self.query, self.headers.get("User-Agent", ""))

    def _delete_options(self) -> dict[str, Any]:
        sent = parsed_json(self.body) if self.body else {}
        if not isinstance(sent, dict):
            raise bad_request("the body of a DELETE is a DeleteOptions object")
        if "propagationPolicy" in self.query:
            sent["propagationPolicy"] = self.query["propagationPolicy"]
        if "gracePeriodSeconds" in self.query:
            sent["gracePeriodSeconds"] = int(self.query["gracePeriodSeconds"])
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
