"""Cron expressions and time zones as Argo's CronWorkflow reads them.

https://github.com/robfig/cron/blob/v3.0.1/parser.go (ParseStandard)
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"@every (?:\d+[hms])+")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()  # of the numbers from `least` on

    def number(self, text: str) -> int | None:
        if text.lower() in self.names:
            return self.least + self.names.index(text.lower())
        found = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None
        return found if found is not None and self.least <= found <= self.most else None

    def numbers(self, text: str) -> frozenset[int] | None:
        """Numbers of one field of an expression; None for a text that the parser of Argo refuses."""
        parts = [self._range(part) for part in text.split(",")]
        return None if None in parts else frozenset().union(*(part for part in parts if part))

    def _range(self, text: str) -> frozenset[int] | None:
        span, slash, step = text.partition("/")
        first, dash, last = span.partition("-")
        low = self.least if first in ("*", "?") else self.number(first)
        high = self.most if first in ("*", "?") or (slash and not dash) else self.number(last or first)
        every = self.number_of_step(step) if slash else 1
        if low is None or high is None or every is None or low > high or (dash and (first in ("*", "?") or not last)):
            return None
        return frozenset(range(low, high + 1, every))

    @staticmethod
    def number_of_step(text: str) -> int | None:
        return int(text) if re.fullmatch(r"[1-9][0-9]{0,3}", text) else None


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


def _cron(found: str) -> str:
    if found in _DESCRIPTORS or _EVERY.fullmatch(found):
        return found
    texts = found.split()
    if len(texts) != len(_FIELDS):
        raise PydanticCustomError(
            "cron",
            "five fields (minute, hour, day of the month, month, day of the week) such as `17 3 * * *`, or one of "
            "{descriptors}; the time zone is workflow.timezone",
            {"descriptors": ", ".join(_DESCRIPTORS)},
        )
    numbers = [_checked(field, text) for field, text in zip(_FIELDS, texts, strict=True)]
    days, months, any_weekday = numbers[2], numbers[3], texts[4] in ("*", "?")
    if any_weekday and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
        raise PydanticCustomError("cron", "a day that one of these months has")
    return found


def _checked(field: _Field, text: str) -> frozenset[int]:
    numbers = field.numbers(text)
    if not numbers:
        names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise PydanticCustomError(
            "cron",
            "{field} from {least} to {most}{names}, where the expression has {text}",
            {"field": field.name, "least": field.least, "most": field.most, "names": names, "text": f"`{text}`"},
        )
    return numbers


def _timezone(found: str) -> str:
    try:
        ZoneInfo(found)
    except (KeyError, OSError, ValueError):  # unknown, a folder, or a path
        known = available_timezones()
        if not known and re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", found):
            return found  # without a database of time zones, Argo decides
        raise PydanticCustomError(
            "timezone",
            "a name of the IANA time zone database such as Asia/Shanghai or UTC",
            {"near": next(iter(near_timezone(found, known)), "")},
        ) from None
    return found


def near_timezone(found: str, known: set[str]) -> list[str]:
    """`China/Shanghai` is near to Asia/Shanghai by its city, `Asia/Shangai` by its spelling."""
    city = found.rpartition("/")[2]
    same = sorted(name for name in known if name.rpartition("/")[2].lower() == city.lower() and "/" in name)
    return same or get_close_matches(found, sorted(known), n=1)


Cron = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
