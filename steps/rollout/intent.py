"""Whether a run may still change the service: only while no other run has promoted a release since it started.

A run reads the counter of the release record in its first task, and compares it before every write. No clock decides
which run is newer (docs/decisions/0005-one-writer.md).
"""

from dataclasses import dataclass

from steps.objects.record import Record


@dataclass(frozen=True)
class Intent:
    run: str  # its name as holder of the writer Lease
    counter: int | None  # of the record, as the first task read it; None: a step by hand, for the current record

    def overtaken(self, record: Record) -> str:
        """The newer run, as a sentence for people; empty while this one may write."""
        if self.counter in (None, record.counter) or (self.run and record.run == self.run):
            return ""
        return (
            f"{self._why(record)} after this run read the release record (its counter was {self.counter} and is "
            f"{record.counter} now), so this run may change nothing. Next: submit a new run"
        )

    def _why(self, record: Record) -> str:
        if record.counter < (self.counter or 0) or not record.run:
            lost = "the release record was removed or restored"
            return f"{record.broken}; another run may have promoted a release" if record.broken else lost
        release = f"release {record.current.release}" if record.current else "a release that cannot be read"
        return f"{record.run} promoted {release} at {record.promoted_at or 'an unknown time'}"
