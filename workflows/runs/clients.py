"""Clients for the runs of a cluster: the Kubernetes API, the submit API of Argo Server, and its events."""

from collections.abc import Mapping
from typing import Any, Protocol

from steps.adapters.kubernetes.cluster import KubernetesCluster, connect, kubeconfig_of
from steps.document.schema import ModelService
from steps.errors import Blocked, StepError, TransientError
from steps.kinds import LEASE, POD, WORKFLOW, WORKFLOW_TEMPLATE, Manifest, Ref
from steps.release import writer_lease_name
from steps.rollout import lease_holder
from workflows.runs.argo_server import ArgoServer
from workflows.runs.logs import CONTAINER, LINES, WORKFLOW_LABEL, PodLog, in_order, node_of
from workflows.runs.submission import DOCUMENT, Submission


class Client(Protocol):
    """Every method raises Blocked for a refusal and TransientError without an answer."""

    def template(self, namespace: str, name: str) -> Manifest | None: ...

    def start(self, submission: Submission) -> bool:
        """False if a run of this name exists."""
        ...

    def run(self, namespace: str, name: str) -> Manifest | None: ...

    def runs(self, namespace: str) -> list[Manifest]: ...

    def logs(self, namespace: str, run: str) -> list[PodLog]:
        """One for each pod of the run that still exists, the oldest first."""
        ...

    def gone_writer(self, service: ModelService) -> str:
        """The run that was deleted while it changed the service; empty if there is none or the Lease cannot be read."""
        ...


class KubernetesClient:
    """Needs a kubeconfig only: the run is a Workflow object, and Argo's controller finds it."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self._cluster = cluster

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "KubernetesClient":
        return cls(connect(kubeconfig_of(environment)))

    def template(self, namespace: str, name: str) -> Manifest | None:
        return self._cluster.get(Ref(WORKFLOW_TEMPLATE, name, namespace))

    def start(self, submission: Submission) -> bool:
        return self._cluster.create(submission.manifest)

    def run(self, namespace: str, name: str) -> Manifest | None:
        return self._cluster.get(Ref(WORKFLOW, name, namespace))

    def runs(self, namespace: str) -> list[Manifest]:
        return self._cluster.select(WORKFLOW, namespace)

    def logs(self, namespace: str, run: str) -> list[PodLog]:
        names = (
            (str(pod["metadata"]["name"]), node_of(pod))
            for pod in in_order(self._cluster.select(POD, namespace, {WORKFLOW_LABEL: run}))
        )
        return [
            PodLog(name, node, self._cluster.pod_log(namespace, name, CONTAINER, lines=LINES)) for name, node in names
        ]

    def gone_writer(self, service: ModelService) -> str:
        try:
            lease = self._cluster.get(Ref(LEASE, writer_lease_name(service), service.namespace))
        except StepError:  # the permission to read runs does not include Leases
            return ""
        return lease_holder.gone(self._cluster, lease, service.workflow.namespace)


class ArgoServerClient:
    """Argo Server starts the run with the permissions of the token."""

    def __init__(self, server: ArgoServer) -> None:
        self._server = server

    def template(self, namespace: str, name: str) -> Manifest | None:
        return self._server.get(f"/api/v1/workflow-templates/{namespace}/{name}")

    def start(self, submission: Submission) -> bool:
        options = {
            "name": submission.name,
            "parameters": [f"{name}={value}" for name, value in submission.parameters.items()],
            "labels": ",".join(f"{key}={value}" for key, value in submission.labels.items()),
        }
        request = {
            "namespace": submission.namespace,
            "resourceKind": WORKFLOW_TEMPLATE.kind,
            "resourceName": submission.template,
            "submitOptions": options,
        }
        return self._start(submission, f"/api/v1/workflows/{submission.namespace}/submit", request)

    def run(self, namespace: str, name: str) -> Manifest | None:
        return self._server.get(f"/api/v1/workflows/{namespace}/{name}")

    def runs(self, namespace: str) -> list[Manifest]:
        return self._server.list(f"/api/v1/workflows/{namespace}")

    def logs(self, namespace: str, run: str) -> list[PodLog]:
        raise Blocked(
            f"the logs of run {run} are read through the Kubernetes API, and this command uses Argo Server",
            f"use a kubeconfig and --argo-server '', or argo logs -n {namespace} {run}",
        )

    def gone_writer(self, service: ModelService) -> str:  # noqa: ARG002  # Argo Server serves no Leases
        return ""

    def _start(self, submission: Submission, path: str, content: Mapping[str, Any]) -> bool:
        """Read the run after an error: Argo Server sends a name and a prefix for one, and Kubernetes then answers for a
        name that is taken `could not be completed at this time, please try again`, as HTTP 500.
        https://github.com/kubernetes/kubernetes/blob/v1.20.2/staging/src/k8s.io/apiserver/pkg/registry/rest/create.go
        """
        try:
            return self._server.create(path, content)
        except TransientError:
            if self.run(submission.namespace, submission.name) is None:
                raise
            return False


class EventClient(ArgoServerClient):
    """The event binding of the service starts the run, or refuses the payload.

    Argo's answer does not depend on a match of a binding, so the caller has to poll for the run.
    """

    def start(self, submission: Submission) -> bool:
        path = f"/api/v1/events/{submission.namespace}/{submission.template}"
        return self._start(submission, path, _payload(submission))


def _payload(submission: Submission) -> Mapping[str, str]:
    run_id = submission.name.removeprefix(f"{submission.template}-")
    overrides = {name: value for name, value in submission.parameters.items() if name != DOCUMENT}
    return {"run-id": run_id, **overrides}
