"""Logs are for diagnosis and go to stderr: lines for people on a terminal, JSON lines otherwise."""

import json
import logging
import sys
from typing import Any

_FIELDS = frozenset(vars(logging.makeLogRecord({})))


class _JsonLines(logging.Formatter):
    def __init__(self, context: dict[str, str]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in vars(record).items() if key not in _FIELDS}
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._context,
            "message": record.getMessage(),
            **extra,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(*, step: str, service: str, verbose: bool) -> None:
    """Configure logging for a step process. SDK loggers stay at INFO: oss2 prints credentials at DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines({"step": step, "service": service}))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("steps").setLevel(logging.DEBUG if verbose else logging.INFO)
