"""Whether the run that holds a Lease has ended, by its Workflow.

After Terminate, after a delete, and where the exit handler could not start, the Lease is not released. The name of the
holder is no evidence: a step by hand and a local run have no Workflow, and a Workflow of that name may be in another
namespace, or new. So a run records namespace and uid of its Workflow in the Lease, and only such a Lease is checked.
"""

from typing import Protocol

from steps.errors import StepError
from steps.kinds import WORKFLOW, Manifest, Ref
from steps.report.run import FAILED, SUCCEEDED

# Annotations of a Lease: the Workflow of its holder.
WORKFLOW_NAMESPACE = "slipway/workflow-namespace"
WORKFLOW_UID = "slipway/workflow-uid"


class ObjectReader(Protocol):
    def get(self, ref: Ref) -> Manifest | None: ...


def workflow_note(locks: ObjectReader, run: str, namespace: str) -> dict[str, str]:
    """The annotations for the Lease of a run with a running Workflow; none if Argo does not confirm it."""
    try:
        found = locks.get(Ref(WORKFLOW, run, namespace))
    except StepError:  # no Argo, no permission, no answer, or a name that no object can have
        return {}
    if found is None or _has_ended(found):
        return {}
    return {WORKFLOW_NAMESPACE: namespace, WORKFLOW_UID: found["metadata"]["uid"]}


def ended(locks: ObjectReader, lease: Manifest | None, namespace: str) -> str:
    """The end of the Workflow that holds a Lease, for people; empty while it runs, and if its state is not known.

    Only Workflows of `namespace` are read: the permissions of a step end there. Argo writes the final phase after the
    exit handler, so a run that is stopping, rolling back or suspended still holds its Lease.
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (operate)
    """
    noted = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    run = last_holder(lease)
    if not run or noted.get(WORKFLOW_NAMESPACE) != namespace or not noted.get(WORKFLOW_UID):
        return ""
    ref = Ref(WORKFLOW, run, namespace)
    try:
        found = locks.get(ref)
    except StepError:
        return ""
    if found is None or found["metadata"]["uid"] != noted[WORKFLOW_UID]:
        return f"{ref} is gone"
    return f"{ref} has ended: {found['status']['phase']}" if _has_ended(found) else ""


def gone(locks: ObjectReader, lease: Manifest | None, namespace: str) -> str:
    """The run that was deleted while it held a Lease; empty without one, and if its state is not known."""
    return last_holder(lease) if ended(locks, lease, namespace).endswith(" is gone") else ""


def last_holder(lease: Manifest | None) -> str:
    """The last holder of a Lease, expired or not; empty once it was released."""
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def _has_ended(workflow: Manifest) -> bool:
    return (workflow.get("status") or {}).get("phase") in (SUCCEEDED, *FAILED)
