"""The bucket, and the access key for it."""

from steps.checks.facts import PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.release import Release


def access_key(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """The Secret with the access key, where this account may read it; a pod gets the key itself in any case."""
    credentials = release.service.store.credentials
    if credentials.role:
        return (Pass(f"OSS is reached with the role {credentials.role}"),)
    name = f"{release.service.workflow.namespace}/{credentials.secret}"
    if isinstance(facts.secret, Refusal):
        return (Pass(f"Secret {name} is not checked: {facts.secret.reason}"),)
    if facts.secret is None:
        return (Fail(f"no Secret {name}", "a Secret with the keys akId and akSecret"),)
    missing = [key for key in ("akId", "akSecret") if not facts.secret.get("data", {}).get(key)]
    if missing:
        found = ", ".join(sorted(facts.secret.get("data", {}))) or "no keys at all"
        return (Fail(f"Secret {name} with {found}", f"the keys {' and '.join(missing)}, not empty"),)
    return (Pass(f"Secret {name} has akId and akSecret"),)


def bucket(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    if isinstance(facts.bucket, Refusal):
        return (Fail(facts.bucket.reason, "permission to read and write below the prefix"),)
    return (Pass(facts.bucket),)
