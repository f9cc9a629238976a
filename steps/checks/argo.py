"""Did Argo understand the lock of the run? A controller that was upgraded ignores the field of an older line.

The schedule is a field of the same kind, in a file of the same rendering: Argo 4 knows neither `mutex` nor `schedule`,
and only its own log shows it. https://argo-workflows.readthedocs.io/en/latest/upgrading/
"""

from steps.checks.facts import PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.release import Release

CONTROLLER = "workflow-controller"  # name of its Deployment in upstream's manifests


def lock_of_the_run(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """A task runs only while its run holds the mutex of its template, and the status names it.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/sync/sync_manager.go (TryAcquire)
    """
    if isinstance(facts.run, Refusal):
        return (Fail(facts.run.reason, "permission to get the Workflow of this run"),)
    if facts.run is None:
        return (Pass("no run of Argo, hence no lock to check"),)
    held = ((facts.run.get("status") or {}).get("synchronization") or {}).get("mutex") or {}
    if held.get("holding"):
        return (Pass("Argo understood the lock of this run"),)
    return (
        Fail(
            f"a run without a lock, under {_controller(facts)}",
            "the mutex of its template in status.synchronization: the template was rendered for another line of Argo, "
            "so that its runs are not queued and its schedule may not fire",
        ),
    )


def _controller(facts: PlatformFacts) -> str:
    """Image of the controller, with the version in its tag; a managed one is not visible."""
    deployments = () if isinstance(facts.deployments, Refusal) else facts.deployments
    images = [image for one in deployments if one["metadata"]["name"] == CONTROLLER for image in one.get("images", ())]
    return ", ".join(images) or "a controller that is not visible here"
