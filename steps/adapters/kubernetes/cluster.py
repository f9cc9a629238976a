"""The Kubernetes API through the official client: server-side apply, previews by dry run, and certain absences."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.client import ApiClient, ApiException
from kubernetes.dynamic import DynamicClient, Resource
from urllib3.exceptions import HTTPError

from steps.adapters.kubernetes.access import client_configuration
from steps.adapters.kubernetes.discovery import Discovery
from steps.adapters.kubernetes.errors import (
    ApiRequest,
    exists_already,
    is_absent,
    is_conflict,
    is_no_log,
    is_not_served,
    no_answer,
    no_json,
    refusal,
)
from steps.errors import Blocked, TransientError
from steps.kinds import FIELD_MANAGER, KUBECONFIG, Kind, Manifest, Ref
from steps.ports.kubernetes import Labels, Permission, Reduce
from steps.reconcile.retry_policy import RetryPolicy

REQUEST_TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two reads
RETRIES = RetryPolicy(attempts=8, budget=20.0, longest_pause=4.0)  # about 8 seconds: a restart of the API server
PAGE = 500  # objects in one answer, as in kubectl
REVIEWS = "/apis/authorization.k8s.io/v1"
# Groups that the authenticator adds to a token of a service account; roles may be bound to them.
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-subjects
ACCOUNT = "system:serviceaccount:"
ACCOUNT_GROUPS = ("system:serviceaccounts", "system:authenticated")

T = TypeVar("T")


def kubeconfig_of(environment: Mapping[str, str]) -> Path | None:
    """The kubeconfig that the environment names, or the one of the home folder; None in a pod."""
    if KUBECONFIG in environment:
        return Path(environment[KUBECONFIG])
    return None if "KUBERNETES_SERVICE_HOST" in environment else Path.home() / ".kube" / "config"


def connect(kubeconfig: Path | None) -> "KubernetesCluster":
    """None means the service account of this pod. Sends no request.

    Raises Blocked for an absent or unusable kubeconfig.
    """
    client = ApiClient(client_configuration(kubeconfig))
    client.user_agent = FIELD_MANAGER
    return KubernetesCluster(DynamicClient(client, discoverer=Discovery))


class KubernetesCluster:
    """Implements `Cluster` and `Locks` of `steps.ports.kubernetes`."""

    def __init__(self, client: DynamicClient) -> None:
        self._client = client

    def get(self, ref: Ref) -> Manifest | None:
        resource = self._resource(ref.kind)
        request = _request("get", resource, ref)
        call = partial(self._client.get, resource, name=ref.name, namespace=ref.namespace or None)
        return self._object(request, call, absent=partial(is_absent, request))

    def select(self, kind: Kind, namespace: str = "", labels: Labels = None, part: Reduce = None) -> list[Manifest]:
        resource = self._resource(kind)
        request = ApiRequest("list", _plural(resource), namespace)
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or None
        call = partial(self._client.get, resource, namespace=namespace or None, label_selector=selector, limit=PAGE)
        items: list[Manifest] = []
        more: str | None = None
        while more != "":
            page = self._object(request, partial(call, _continue=more)) or {}
            items += map(part, page["items"]) if part else page["items"]
            more = page["metadata"].get("continue", "")
        # Items of built-in kinds arrive without apiVersion and kind.
        whole = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items]
        return sorted(whole, key=lambda one: (one["metadata"].get("namespace", ""), one["metadata"]["name"]))

    def preview(self, wanted: Manifest) -> Manifest:
        return self._apply(wanted, dry_run="All")

    def apply(self, wanted: Manifest) -> None:
        self._apply(wanted)

    def create(self, wanted: Manifest) -> bool:
        """A plain POST, for accounts that may create and not patch. False if an object of this name exists.

        Also false after a lost answer, so names must be unique enough that such an object can only be the same one.
        """
        ref = Ref.of(wanted)
        resource = self._resource(ref.kind)
        call = partial(self._client.create, resource, body=wanted, namespace=ref.namespace or None)
        return self._object(_request("create", resource, ref), call, absent=exists_already) is not None

    def delete(self, ref: Ref, uid: str) -> None:
        resource = self._resource(ref.kind)
        request = _request("delete", resource, ref)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }

        def gone(error: ApiException) -> bool:
            return is_absent(request, error) or (is_conflict(error) and not self._lives(ref, uid))

        call = partial(self._client.delete, resource, name=ref.name, namespace=ref.namespace or None, body=options)
        self._object(request, call, absent=gone)

    def swap(self, wanted: Manifest) -> bool:
        ref = Ref.of(wanted)
        resource = self._resource(ref.kind)
        known = "resourceVersion" in wanted["metadata"]
        write = self._client.replace if known else self._client.create
        call = partial(write, resource, body=wanted, namespace=ref.namespace or None, field_manager=FIELD_MANAGER)
        request = _request("update" if known else "create", resource, ref)
        # Deleted, or written by another client: it is not the version that was read.
        return self._object(request, call, absent=lambda e: is_conflict(e) or is_absent(request, e)) is not None

    def serves(self, kind: Kind) -> bool:
        return self._served(kind) is not None

    def allows(self, permission: Permission) -> bool:
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "verb": permission.verb,
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": permission.namespace,
            "name": permission.name,
        }
        spec: dict[str, Any] = {"resourceAttributes": {key: value for key, value in attributes.items() if value}}
        if permission.user:
            spec |= {"user": permission.user, "groups": _groups(permission.user)}
        kind = "SubjectAccessReview" if permission.user else "SelfSubjectAccessReview"
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        plural = f"{kind.lower()}s"
        call = partial(self._client.request, "post", f"{REVIEWS}/{plural}", body=review)
        answer = self._object(ApiRequest("create", f"{plural}.authorization.k8s.io"), call) or {}
        return bool(answer["status"]["allowed"])

    def pod_log(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> str:
        request = ApiRequest("get", "pods/log", namespace, pod)

        def read() -> bytes:
            answer = self._client.request(
                "get",
                f"/api/v1/namespaces/{namespace}/pods/{pod}/log",
                query_params=[("container", container), ("previous", str(previous).lower()), ("tailLines", str(lines))],
                serialize=False,
                _request_timeout=REQUEST_TIMEOUT,
            )
            return bytes(answer.data)

        found = self._ask(request, read, absent=partial(is_no_log, request))
        return (found or b"").decode(errors="replace")

    def _apply(self, wanted: Manifest, **options: str) -> Manifest:
        ref = Ref.of(wanted)
        resource = self._resource(ref.kind)
        call = partial(
            self._client.server_side_apply,
            resource,
            body=wanted,
            namespace=ref.namespace or None,
            field_manager=FIELD_MANAGER,
            force_conflicts="true",
            **options,
        )
        pinned = "resourceVersion" in wanted["metadata"]  # a newer version stays newer, so no retry helps
        found = self._object(_request("patch", resource, ref), call, absent=is_conflict if pinned else None)
        if found is None:
            raise TransientError(f"{ref} was written by another client since it was read", "run it again")
        return found

    def _lives(self, ref: Ref, uid: str) -> bool:
        live = self.get(ref)
        return live is not None and live["metadata"]["uid"] == uid

    def _resource(self, kind: Kind) -> Resource:
        resource = self._served(kind)
        if resource is None:
            raise Blocked(
                f"the cluster does not serve {kind.kind} of {kind.api_version}",
                "install the CRD and controller of this version, "
                f'list the served ones with `kubectl api-resources --api-group="{kind.group}"`',
            )
        return resource

    def _served(self, kind: Kind) -> Resource | None:
        request = ApiRequest("get", f"the kinds of {kind.api_version}")
        call = partial(
            self._client.resources.get,
            api_version=kind.api_version,
            kind=kind.kind,
            _request_timeout=REQUEST_TIMEOUT,
        )
        return self._ask(request, call, absent=is_not_served)

    def _object(self, request: ApiRequest, call: Callable[..., Any], absent: "Absent | None" = None) -> Manifest | None:
        """Request a JSON object."""

        def read() -> Manifest:
            found = call(serializer=lambda _, plain: plain, _request_timeout=REQUEST_TIMEOUT)
            if not isinstance(found, dict):
                raise no_json(request, found)
            return found

        return self._ask(request, read, absent)

    def _ask(self, request: ApiRequest, call: Callable[[], T], absent: "Absent | None" = None) -> T | None:
        """Call, and retry for seconds without an answer. None for a refusal that `absent` accepts."""
        return RETRIES.run(lambda: _once(request, call, absent))


Absent = Callable[[ApiException], bool]


def _once(request: ApiRequest, call: Callable[[], T], absent: Absent | None) -> T | None:
    try:
        return call()
    except ApiException as error:
        if absent and absent(error):
            return None
        raise refusal(request, error) from error
    except (HTTPError, OSError) as error:
        raise no_answer(request, str(error)) from error


def _request(verb: str, resource: Resource, ref: Ref) -> ApiRequest:
    return ApiRequest(verb, _plural(resource), ref.namespace, ref.name)


def _groups(user: str) -> list[str]:
    if not user.startswith(ACCOUNT):
        return ["system:authenticated"]
    namespace = user.removeprefix(ACCOUNT).partition(":")[0]
    return [*ACCOUNT_GROUPS, f"system:serviceaccounts:{namespace}"]


def _plural(resource: Resource) -> str:
    return f"{resource.name}.{resource.group}" if resource.group else str(resource.name)
