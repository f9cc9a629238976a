"""Failures of a pod that time does not mend.

Each ends the run at once, so the list is short:

- a wrong image name, a refused or absent image, a missing Secret or ConfigMap, a container killed for its memory, a
  wrong command line (exit code 2): at once. A failure of the network during an image pull is waited for;
- any other crash: after the second one. The first may come from a busy node (the engine kills itself if its own warm-up
  is late);
- a volume that cannot be mounted: after the third attempt, since a FUSE process may need a moment;
- an unschedulable pod: never. The pods of an old release may hold the GPUs for another ten minutes, and a cluster
  autoscaler needs such pods as its trigger. `check-components` has counted the GPUs just before, so the pod is late
  rather than wrong, and the deadline of the rollout ends the wait with the message of the scheduler.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from steps.kinds import Manifest
from steps.objects.pod_status import container_statuses, last_end, name_of, waiting

CRASHES = 2  # in a row, before a crash is a fault
MOUNT_ATTEMPTS = 3
USAGE_ERROR = 2  # exit code of argparse

_AT_ONCE = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
_STARTING = ("CreateContainerError", "RunContainerError", "StartError", "PostStartHookError")
# Answers of a registry that are final, as containerd and Docker Hub write them.
_REFUSED = ("not found", "manifest unknown", "denied", "unauthorized", "no match for platform", "invalid reference")
# Failures of a network that may pass.
_PASSING = ("timeout", "timed out", "connection re", "temporary failure", "tls handshake", "eof", "toomanyrequests")
_PASSING_CODES = ("429 ", "500 ", "502 ", "503 ", "504 ")
_LONGEST_MESSAGE = 300  # characters
# The kubelet and containerd each put a sentence with the name of the image before the cause.
_BEFORE_CAUSE = re.compile(r'.*": ', re.DOTALL)


def pod_fault(pod: Manifest, events: Iterable[Manifest] = (), log: str = "") -> str:
    """The failure of a pod that waiting does not mend; empty without one. `log` ends with its last crash."""
    found = (_container_fault(status, log) for status in container_statuses(pod) if not status.get("ready"))
    return next((fault for fault in found if fault), "") or _mount_fault(pod, events)


def pod_faults(pods: Iterable[Manifest], events: Iterable[Manifest], logs: Mapping[str, str]) -> list[str]:
    """The failures of several pods, one line for each cause. `logs` are by pod."""
    seen: dict[str, list[str]] = {}
    known = tuple(events)
    for pod in pods:
        fault = pod_fault(pod, known, logs.get(name_of(pod), ""))
        if fault:
            seen.setdefault(fault, []).append(name_of(pod))
    return [f"pod {names[0]}{_and_more(names)}: {fault}" for fault, names in seen.items()]


def mount_trouble(pod: Manifest, events: Iterable[Manifest]) -> tuple[str, int] | None:
    """The newest failure to mount a volume of this pod, and the number of failures."""
    failures = [
        event
        for event in events
        if event.get("reason") in ("FailedMount", "FailedAttachVolume")
        and (event.get("involvedObject") or {}).get("uid") == pod["metadata"].get("uid")
    ]
    if not failures:
        return None
    newest = max(failures, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return _short(newest.get("message", "")), sum(int(event.get("count") or 1) for event in failures)


def crashed_containers(pod: Manifest) -> list[str]:
    """Containers that crashed without a termination message: their log holds the cause."""
    return [
        status["name"]
        for status in container_statuses(pod)
        if waiting(status).get("reason") == "CrashLoopBackOff" and not last_end(status).get("message")
    ]


def _mount_fault(pod: Manifest, events: Iterable[Manifest]) -> str:
    mount = mount_trouble(pod, events)
    if mount is None or mount[1] < MOUNT_ATTEMPTS:
        return ""
    return (
        f"a volume could not be mounted in {mount[1]} attempts: {mount[0]}. Next: check access key, bucket and path of "
        "the volume, and the log of the CSI plugin on the pod's node"
    )


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _container_fault(status: dict[str, Any], log: str) -> str:
    held = waiting(status)
    reason, message = held.get("reason", ""), held.get("message", "")
    evaluate = _EVALUATIONS.get(reason)
    if evaluate is not None:
        return evaluate(status, message, log)
    message = _short(message)
    if reason in _AT_ONCE:
        return f"{reason}: {message}. Next: correct the document, or create the object that it names, then run again"
    if reason in _STARTING and int(status.get("restartCount", 0)) >= CRASHES:
        return f"{reason}: {message}. Next: check the container runtime on the node of the pod"
    return ""


def _pull_fault(status: dict[str, Any], message: str, _log: str) -> str:
    words = message.lower()
    refused = any(word in words for word in _REFUSED)
    passing = any(word in words for word in (*_PASSING, *_PASSING_CODES))
    backing_off = waiting(status)["reason"] == "ImagePullBackOff"
    if not refused and (passing or not backing_off):
        return ""
    return (
        f"{waiting(status)['reason']}: image {status.get('image') or 'unknown'} cannot be pulled: {_cause(message)}. "
        "Next: correct serving.image, or name the registry's Secret in serving.pod.imagePullSecrets"
    )


def _cause(message: str) -> str:
    return _short(_BEFORE_CAUSE.sub("", message)) or _short(message)


def _crash_fault(status: dict[str, Any], _message: str, log: str) -> str:
    end = last_end(status)
    code, reason = end.get("exitCode"), end.get("reason", "")
    crashes = int(status.get("restartCount", 0)) + 1
    last_line = _last_line(end.get("message") or log)
    if reason == "OOMKilled":
        return "OOMKilled: its container exceeded its memory limit. Next: raise serving.resources.memory"
    if code != USAGE_ERROR and crashes < CRASHES:
        return ""
    times = "once" if crashes == 1 else f"{crashes} times"
    log_line = f", last line of its log: {last_line}" if last_line else ""
    hint = "correct serving.version or the arguments" if code == USAGE_ERROR else "read the log of that pod"
    return f"CrashLoopBackOff: its container ended {times} with exit code {code}{log_line}. Next: {hint}"


_EVALUATIONS: Mapping[str, Callable[[dict[str, Any], str, str], str]] = {
    "ErrImagePull": _pull_fault,
    "ImagePullBackOff": _pull_fault,
    "CrashLoopBackOff": _crash_fault,
}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
