"""Is there room under the quotas? The API server refuses what would pass one, hours after a transfer began.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from collections.abc import Iterable, Iterator, Mapping

from steps.checks.facts import Objects, PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.checks.free_capacity import gives_way, pod_requests, worker_requests, workers_to_start
from steps.document.quantities import quantity
from steps.document.schema import WORKER_ROLES
from steps.kinds import Manifest
from steps.release import Release

_COMPUTE = ("cpu", "memory")  # which a quota may name with `requests.` and without
_CLASS = ".storageclass.storage.k8s.io/"


def quotas_for_scratch(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Room for the claim of the scratch volume. With the model in the bucket, it was there or is not needed."""
    service = release.service
    if service.transfer.mode != "staged" or facts.stored:
        return (Pass("this run needs no scratch volume any more"),)
    scratch = service.transfer.scratch
    need = {"requests.storage": quantity(scratch.size), "persistentvolumeclaims": 1.0}
    if scratch.storage_class_name:
        need |= {f"{scratch.storage_class_name}{_CLASS}{name}": amount for name, amount in need.items()}
    return _findings(facts.quotas_of_runs, need, {}, service.workflow.namespace, "the scratch volume")


def quotas_for_workers(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Room for the workers that are still to start; `Recreate` stops the others before."""
    missing = workers_to_start(release, facts)
    need: dict[str, float] = {}
    for role in WORKER_ROLES:
        for resource, amount in {**worker_requests(release, role), "pods": 1.0}.items():
            need[_named(resource)] = need.get(_named(resource), 0) + amount * missing[role]
    pods = () if isinstance(facts.pods, Refusal) else facts.pods
    freed: dict[str, float] = {}
    for pod in pods:
        if gives_way(release, facts, pod):
            for resource, amount in {**pod_requests(pod), "pods": 1.0}.items():
                freed[_named(resource)] = freed.get(_named(resource), 0) + amount
    return _findings(facts.quotas, need, freed, release.service.namespace, f"{sum(missing.values())} workers")


def _named(resource: str) -> str:
    return resource if resource == "pods" else f"requests.{resource}"


def _findings(
    quotas: Objects | Refusal, need: Mapping[str, float], freed: Mapping[str, float], namespace: str, what: str
) -> tuple[Finding, ...]:
    if isinstance(quotas, Refusal):
        return (Fail(quotas.reason, f"permission to list ResourceQuotas in {namespace}"),)
    found = tuple(_short(quotas, need, freed, what))
    return found or (Pass(f"the quotas of namespace {namespace} have room for {what}"),)


def _short(
    quotas: Iterable[Manifest], need: Mapping[str, float], freed: Mapping[str, float], what: str
) -> Iterator[Fail]:
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue  # its scope may exclude these pods
        used = status.get("used") or {}
        for name, hard in (status.get("hard") or spec.get("hard") or {}).items():
            key = _spelled_out(name)
            free = quantity(hard) - quantity(used.get(name, "0")) + freed.get(key, 0)
            if need.get(key, 0) > free:
                where = f"{quota['metadata']['namespace']}/{quota['metadata']['name']}"
                yield Fail(
                    f"ResourceQuota {where} with {name} {used.get(name, '0')} of {hard} used",
                    f"room for {what}, {_amount(key, need[key])}",
                )


def _spelled_out(name: str) -> str:
    """The name that `need` uses: a quota has two for some resources."""
    name = name.removeprefix("count/")
    return f"requests.{name}" if name in _COMPUTE else name


def _amount(key: str, amount: float) -> str:
    return f"{amount / 2**30:g}Gi" if key.endswith(("storage", "memory")) else f"{amount:g}"
