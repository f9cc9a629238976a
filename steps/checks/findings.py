"""Result of a check: pass, pending, or fail with the value found and the value needed."""

from dataclasses import dataclass

from steps.reconcile.plan import Plan


@dataclass(frozen=True)
class Pass:
    text: str


@dataclass(frozen=True)
class Pending:
    """A controller still works on it."""

    text: str


@dataclass(frozen=True)
class Fail:
    found: str
    needed: str


Finding = Pass | Pending | Fail


@dataclass(frozen=True)
class Refusal:
    """A fact that could not be read, because the other side refused. Never the same as absent."""

    reason: str


def as_plan(code: str, title: str, hint: str, findings: tuple[Finding, ...]) -> Plan:
    """The findings of one check as lines for people; every line begins with the code of the check."""
    return Plan(
        ok=tuple(f"{code} {finding.text}" for finding in findings if isinstance(finding, Pass)),
        waiting=tuple(f"{code} {title}: {finding.text}" for finding in findings if isinstance(finding, Pending)),
        failed=tuple(
            f"{code} {title}: found {finding.found}; needed {finding.needed}. Next: {hint}"
            for finding in findings
            if isinstance(finding, Fail)
        ),
    )
