"""Argo as runs use it: its kinds in the embedded Kubernetes API, a controller that a test moves, and Argo Server."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from werkzeug import Request, Response

from steps.report.run import EXIT_TASKS
from tests.support.expr_lang import ExprError, evaluate, received
from tests.support.rendered import objects
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_server import ApiServer
from workflows.simulator.http.server import LoopbackServer, json_reply, target_of, text

NAMESPACE = "slipway"
SERVICE = "qwen3-32b"
TOKEN = "dummy-token"
# As the minimal CRDs of Argo 3.5 have them: no field below spec and status is known, and status is no subresource.
# https://github.com/argoproj/argo-workflows/tree/v3.5.15/manifests/base/crds/minimal
KINDS = ("Workflow", "WorkflowTemplate")
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
MINIMAL = {"type": "object", "required": ["metadata", "spec"], "properties": {"spec": OPEN, "status": OPEN}}


def definition(kind: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """The CRD of one of Argo's kinds; without a schema, as the minimal ones have it."""
    plural = f"{kind.lower()}s"
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or MINIMAL}}
    return {
        "metadata": {"name": f"{plural}.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [version],
        },
    }


@dataclass(frozen=True)
class Attempt:
    """One pod of a task."""

    phase: str = "Succeeded"
    message: str = ""
    recap: str = "nothing changed, 2 as wanted"
    progress: str = "1/1"
    outputs: Mapping[str, str] = field(default_factory=dict)


def nodes(run: str, tasks: Mapping[str, tuple[Attempt, ...]], *, root: str = "Running") -> dict[str, Any]:
    """The nodes that Argo keeps of a line in which each task started a minute after the one before.

    As `workflow/controller/operator.go` of Argo writes them: the graph, for each task one node for all of its attempts,
    and one for each attempt. A task without attempts was left out.
    """
    found: dict[str, Any] = {
        run: {"id": run, "name": run, "displayName": run, "type": "DAG", "phase": root, "templateName": "line"}
    }
    for minute, (task, attempts) in enumerate(tasks.items()):
        if task in EXIT_TASKS:
            found |= _exit_nodes(run, task, attempts, minute)
            continue
        name, shown = f"{run}.{task}", task
        base = {"templateName": task, "startedAt": f"2026-01-02T03:{minute:02}:00Z"}
        if not attempts:
            found[name] = {
                **base,
                "id": name,
                "name": name,
                "displayName": shown,
                "type": "Skipped",
                "phase": "Omitted",
            }
            continue
        found[name] = _retry_node(name, shown, attempts, base, minute)
        for number, attempt in enumerate(attempts):
            node = _attempt_node(f"{name}({number})", f"{shown}({number})", attempt, base, minute)
            found[node["id"]] = node
    return found


def _exit_nodes(run: str, task: str, attempts: tuple[Attempt, ...], minute: int) -> dict[str, Any]:
    """A step of the exit handler: its pod, or that its `when` left it out; the graph around it, and its group.

    As `workflow/controller/steps.go` of Argo writes them.
    """
    handler = f"{run}.onExit"
    group = f"{handler}[{EXIT_TASKS.index(task)}]"
    name = f"{group}.{task}"
    base = {"templateName": task, "startedAt": f"2026-01-02T03:{minute:02}:00Z"}
    if attempts:
        node = _attempt_node(name, task, attempts[-1], base, minute)
    else:
        why = "when 'Succeeded != Succeeded' evaluated false"
        node = {**base, "id": name, "name": name, "displayName": task, "type": "Skipped", "phase": "Skipped"}
        node |= {"message": why, "finishedAt": node["startedAt"]}
    around = {
        handler: {"id": handler, "name": handler, "displayName": handler, "type": "Steps", "phase": "Running"},
        group: {"id": group, "name": group, "displayName": group[len(handler) :], "type": "StepGroup"},
    }
    return {**around, name: node}


def _retry_node(name: str, shown: str, attempts: tuple[Attempt, ...], base: dict[str, Any], minute: int) -> Any:
    last = attempts[-1]
    ended = last.phase in ("Succeeded", "Failed", "Error")
    why = "retryStrategy.expression evaluated to false" if ended and last.phase != "Succeeded" else ""
    node = {**base, "id": name, "name": name, "displayName": shown, "type": "Retry", "message": why}
    node["phase"] = last.phase if ended else "Running"
    if ended:
        node["finishedAt"] = f"2026-01-02T03:{minute:02}:42Z"
    return {**node, "outputs": _outputs(last)} if last.phase == "Succeeded" else node


def _attempt_node(name: str, shown: str, attempt: Attempt, base: dict[str, Any], minute: int) -> dict[str, Any]:
    node = {**base, "id": name, "name": name, "displayName": shown, "type": "Pod", "phase": attempt.phase}
    node |= {"message": attempt.message, "progress": attempt.progress}
    if attempt.phase in ("Succeeded", "Failed", "Error"):
        node |= {"finishedAt": f"2026-01-02T03:{minute:02}:42Z", "outputs": _outputs(attempt)}
    return node


def _outputs(attempt: Attempt) -> dict[str, Any]:
    values = {**attempt.outputs, "recap": attempt.recap}
    return {"parameters": [{"name": name, "value": value} for name, value in values.items()]}


@dataclass
class ArgoCluster:
    """The objects on the cluster."""

    store: ClusterStore
    kubeconfig: Path
    faults: RequestFaults
    argo_server: str = ""
    has_binding: bool = True
    requests: list[str] = field(default_factory=list)  # method and path of each
    bad_answers: list[tuple[int, bytes]] = field(default_factory=list)  # to the next requests for a run
    logs: dict[str, str] = field(default_factory=dict)  # of the container `main`, by pod
    says_try_again: bool = False  # as Kubernetes before 1.30 reports a taken name to Argo Server

    def kind(self, name: str) -> Resource:
        found = self.store.registry.kind("argoproj.io/v1alpha1", name)
        assert found
        return found

    def apply_template(self, argo: str = "3.5", **changes: Any) -> dict[str, Any]:
        template = objects(argo)["WorkflowTemplate"]
        template["spec"] |= changes
        return self.store.create(self.kind("WorkflowTemplate"), template)

    def runs(self) -> list[dict[str, Any]]:
        return self.store.select(self.kind("Workflow"), NAMESPACE)

    def only_run(self) -> dict[str, Any]:
        (run,) = self.runs()
        return run

    def tell(self, name: str = "", **status: Any) -> None:
        """The controller writes the status of a run; without a name, of the only one."""
        workflow = self.store.get(self.kind("Workflow"), name or self.only_run()["metadata"]["name"], NAMESPACE)
        assert workflow
        graph = [template for template in objects("3.5")["WorkflowTemplate"]["spec"]["templates"] if "dag" in template]
        kept = {"storedWorkflowTemplateSpec": {"templates": graph}}
        self.store.replace(self.kind("Workflow"), {**workflow, "status": {**kept, **status}})

    def add_pod(self, name: str, node: str, log: str | None, run: str) -> None:
        """A pod as Argo creates it, with its log; None: its container has not started."""
        labels, annotations = {"workflows.argoproj.io/workflow": run}, {"workflows.argoproj.io/node-name": node}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations}
        self.store.create(PODS, {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "x"}]}})
        if log is not None:
            self.logs[name] = log

    def delete_run(self) -> None:
        self.store.delete(self.kind("Workflow"), self.only_run()["metadata"]["name"], NAMESPACE)


@contextmanager
def argo_cluster(folder: Path) -> Iterator[ArgoCluster]:
    store, faults = ClusterStore(), RequestFaults()
    for kind in KINDS:
        store.create(CUSTOM_RESOURCE_DEFINITIONS, definition(kind))
    store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    logs: dict[str, str] = {}
    api = ApiServer(store, faults=faults, pod_log=lambda _namespace, pod, _container, _previous: logs.get(pod))
    api.write_kubeconfig(folder / "kubeconfig")
    world = ArgoCluster(store, folder / "kubeconfig", faults, logs=logs)
    server = LoopbackServer(ArgoServer(world).serve)
    world.argo_server = server.url
    api.start()
    server.start()
    try:
        yield world
    finally:
        server.stop()
        api.stop()


# Names of gRPC for its errors, and the statuses of its gateway over HTTP.
# https://github.com/grpc-ecosystem/grpc-gateway/blob/main/runtime/errors.go
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}


# Recorded from Argo Server 4.1.2 on Kubernetes 1.20.2, for a run with a taken name.
TRY_AGAIN = "The POST operation against Workflow.argoproj.io could not be completed at this time, please try again."


class ArgoServer:
    """The part of Argo Server's API that starts and reads runs, with the shapes of its swagger.

    https://github.com/argoproj/argo-workflows/blob/v3.5.13/api/openapi-spec/swagger.json
    """

    def __init__(self, world: ArgoCluster) -> None:
        self.world = world

    def serve(self, request: Request) -> Response:
        self.world.requests.append(f"{request.method} {target_of(request)}")
        if "/workflows/" in request.path and self.world.bad_answers:
            status, content = self.world.bad_answers.pop(0)
            return text(content, status)
        try:
            self._authenticate(request)
            return json_reply(self._route(request))
        except ApiError as error:
            return json_reply({"code": _CODES[error.status], "message": error.message}, error.status)

    def _authenticate(self, request: Request) -> None:
        """Words as in `server/auth/gatekeeper.go`."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            more = "see https://argo-workflows.readthedocs.io/en/release-3.5/faq/"
            raise ApiError(401, "Unauthorized", f"token not valid. {more}")

    def _route(self, request: Request) -> Any:
        body = json.loads(request.get_data() or b"null")
        match request.method, request.path.split("/")[3:]:
            case "GET", ["workflow-templates", namespace, name]:
                return self._get("WorkflowTemplate", namespace, name)
            case "GET", ["workflows", namespace, name]:
                return self._get("Workflow", namespace, name)
            case "GET", ["workflows", namespace]:
                return self._list(namespace, int(request.args.get("listOptions.continue", "0")))
            case "POST", ["workflows", namespace, "submit"]:
                return self._submit(namespace, body)
            case "POST", ["events", namespace, discriminator]:
                return self._event(namespace, discriminator, body)
        raise ApiError(404, "NotFound", "Not Found")

    def _get(self, kind: str, namespace: str, name: str) -> Any:
        found = self.world.store.get(self.world.kind(kind), name, namespace)
        if found is None:
            raise ApiError(404, "NotFound", f'{kind.lower()}s.argoproj.io "{name}" not found')
        return found

    def _list(self, namespace: str, start: int) -> Any:
        """At most two at a time, so that a client has to ask for more; no item at all is null, as Go writes it."""
        items = self.world.store.select(self.world.kind("Workflow"), namespace)
        more = {"continue": str(start + 2)} if start + 2 < len(items) else {}
        return {"metadata": {"resourceVersion": "1", **more}, "items": items[start : start + 2] or None}

    def _submit(self, namespace: str, body: Any) -> Any:
        assert body["namespace"] == namespace
        assert body["resourceKind"] == "WorkflowTemplate"
        options = body["submitOptions"]
        parameters = [dict(zip(("name", "value"), text.split("=", 1), strict=True)) for text in options["parameters"]]
        labels = dict(pair.split("=") for pair in options["labels"].split(","))
        return self._create(namespace, options["name"], body["resourceName"], parameters, labels)

    def _event(self, namespace: str, discriminator: str, payload: Any) -> Any:
        """Dispatch as `server/event/dispatch/operation.go` does, at once."""
        binding = objects("3.5")["WorkflowEventBinding"]["spec"]
        environment = {"discriminator": discriminator, "namespace": namespace, "payload": received(payload)}
        try:
            if self.world.has_binding and evaluate(binding["event"]["selector"], environment):
                submit = binding["submit"]
                name = evaluate(submit["metadata"]["name"], environment) or f"{SERVICE}-random"
                labels = {key: evaluate(text, environment) for key, text in submit["metadata"]["labels"].items()}
                parameters = [
                    {"name": found["name"], "value": evaluate(found["valueFrom"]["event"], environment)}
                    for found in submit["arguments"]["parameters"]
                ]
                self._create(namespace, name, submit["workflowTemplateRef"]["name"], parameters, labels)
        except ExprError as error:
            raise ApiError(500, "InternalError", f"failed to dispatch event: {error}") from error
        except ApiError as error:
            message = f"failed to dispatch event: [failed to create workflow: {error.message}]"
            raise ApiError(500, "InternalError", message) from error
        return {}

    def _create(self, namespace: str, name: str, template: str, parameters: list[Any], labels: dict[str, str]) -> Any:
        spec = {"workflowTemplateRef": {"name": template}, "arguments": {"parameters": parameters}}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        try:
            return self.world.store.create(self.world.kind("Workflow"), {"metadata": metadata, "spec": spec})
        except ApiError as error:
            if error.status == 409 and self.world.says_try_again:
                raise ApiError(500, "ServerTimeout", TRY_AGAIN) from error
            raise
