"""Overrides that a run inherits from the last promotion, as long as the document has not changed since."""

from steps.document.overrides import DOCUMENT, InForce, Resolved, Wanted
from steps.objects.record import Record


def inherited(wanted: Wanted, found: Record) -> tuple[InForce, ...]:
    return found.overrides if found.document == wanted.fingerprint else ()


def resolve(wanted: Wanted, found: Record) -> Resolved:
    """The document with all overrides of the run. Raises DocumentError for a document that contradicts an override."""
    return wanted.resolve(inherited(wanted, found))


def explained(wanted: Wanted, found: Record) -> tuple[str, ...]:
    """Overrides in force, and overrides that ended, as sentences for people."""
    kept, overrides = inherited(wanted, found), resolve(wanted, found).overrides
    ended = tuple(one for one in found.overrides if one.parameter not in {now.parameter for now in overrides})
    why = "the document changed and wins as a whole" if found.overrides != kept else "the document has this value"
    return (
        *(_in_force(one, wanted.run) for one in overrides),
        *(f"{one} is no longer in force: {_reset(one, wanted) or why}" for one in ended),
        *filter(None, (found.ignored,)),
    )


def _in_force(one: InForce, run: str) -> str:
    how = "by this run, and inherited by later ones once it is promoted" if one.run == run else "inherited from run"
    source = "" if one.run == run else f" {one.run}"
    return f"{one.field}={one.value} {how}{source}; reset it with -p {one.parameter}={DOCUMENT} or change the document"


def _reset(one: InForce, wanted: Wanted) -> str:
    return "this run resets it" if wanted.parameters.get(one.parameter) == DOCUMENT else ""
