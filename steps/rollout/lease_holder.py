"""Whether the holder of a Lease is at work, where Argo knows it: the Workflow of a run that has ended, or is gone.

After Terminate, after a delete, and where the exit handler could not start, no one gives the Lease back. A name alone
proves nothing: a step by hand and a local run have no Workflow, and a Workflow of that name may be in another
namespace, or made anew. So a run that takes the Lease writes down which Workflow it is, and only such a Lease is judged
by it.
"""

from typing import Protocol

from steps.errors import StepError
from steps.kinds import WORKFLOW, Manifest, Ref
from steps.report.run import FAILED, SUCCEEDED

# Annotations of a Lease: the Workflow of its holder.
WORKFLOW_NAMESPACE = "slipway/workflow-namespace"
WORKFLOW_UID = "slipway/workflow-uid"


class Reads(Protocol):
    def get(self, ref: Ref) -> Manifest | None: ...


def workflow_note(locks: Reads, run: str, namespace: str) -> dict[str, str]:
    """The annotations for the Lease of a run whose Workflow is at work now; none if Argo does not say that it is."""
    try:
        found = locks.get(Ref(WORKFLOW, run, namespace))
    except StepError:  # no Argo, no right, or no answer; the name may also be that of no object
        return {}
    if found is None or _ended(found):
        return {}
    return {WORKFLOW_NAMESPACE: namespace, WORKFLOW_UID: found["metadata"]["uid"]}


def over(locks: Reads, lease: Manifest | None, namespace: str) -> str:
    """Why the Workflow that holds a Lease is at work no more, for people; empty if it is, and if that is not known.

    Only Workflows of `namespace` are asked for: the rights of a step end there. Argo writes the phase of the end after
    the exit handler, so a run that is stopped or rolled back is still at work, and so is one that was suspended.
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
    return f"{ref} has ended: {found['status']['phase']}" if _ended(found) else ""


def gone(locks: Reads, lease: Manifest | None, namespace: str) -> str:
    """The run that was deleted while it held a Lease; empty if it was not, and if that is not known."""
    return last_holder(lease) if over(locks, lease, namespace).endswith(" is gone") else ""


def last_holder(lease: Manifest | None) -> str:
    """Who took a Lease last, in time or not; empty once it was given back."""
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def _ended(workflow: Manifest) -> bool:
    return (workflow.get("status") or {}).get("phase") in (SUCCEEDED, *FAILED)
