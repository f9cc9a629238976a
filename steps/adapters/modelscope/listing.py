"""The listing of the hub, checked before use. Pure.

Fields as in `_legacy_api.py` of the package modelscope-hub. The listing has no pages: it ends at 3000 entries without a
mark, so a listing of that length may be cut.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from steps.adapters.modelscope.errors import UnusableAnswer
from steps.errors import Blocked
from steps.model import Listing, ModelFile, UnsafePathError

LISTING_LIMIT = 3000
NOT_FOUND_CODES = (10010205001,)
SHOWN = 5  # problems in one message
EMPTY = hashlib.sha256().hexdigest()

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class _ProblemError(ValueError):
    """An error of one entry."""


def listing_of(body: bytes, content_type: str, model: str) -> Listing:
    """The files of an answer to `repo/files`.

    Raises Blocked for a listing with errors, UnusableAnswer for an answer without a listing.
    """
    entries = _entries(_parsed(body, content_type, model), model)
    if len(entries) >= LISTING_LIMIT:
        raise Blocked(
            f"{model}: the hub listed {len(entries)} entries, and it stops at {LISTING_LIMIT}",
            "the model cannot be pinned by this listing; ask its owner for a repository with fewer files",
        )
    files, problems = _files(entries)
    problems += _conflicts(files)
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise Blocked(
            f"{model}: the listing of the hub cannot be trusted: {'; '.join(problems[:SHOWN])}{more}",
            "no file was moved; check the files of the model at the hub, and report the error to its owner",
        )
    return Listing.of(files)


def error_of(answer: Any) -> tuple[int, str] | None:
    """Code and message of an error; it may come with HTTP status 200. None for an answer that is no error."""
    if not isinstance(answer, dict) or "Code" not in answer:
        return None
    if answer["Code"] in (200, "200") and answer.get("Success", True):
        return None
    code = answer["Code"] if isinstance(answer["Code"], int) else 0
    return code, f"{code} {' '.join(str(answer.get('Message', '')).split())[:200]}".strip()


def decoded(body: bytes) -> Any:
    """JSON, or None for anything else."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _parsed(body: bytes, content_type: str, model: str) -> Mapping[str, Any]:
    answer = decoded(body)
    if not isinstance(answer, dict):
        raise UnusableAnswer(
            f"expected a listing in JSON, found {content_type or 'no content type'} with {len(body)} bytes; "
            "is model.endpoint a ModelScope hub?"
        )
    error = error_of(answer)
    if error and error[0] in NOT_FOUND_CODES:
        raise absent(model, error[1])
    if error:
        raise UnusableAnswer(f"the hub answered with status 200 and the error {error[1]}")
    return answer


def absent(model: str, message: str) -> Blocked:
    return Blocked(
        f"{model} is not at the hub, which answers: {message or 'not found'}",
        "check model.id and model.revision in the document; names are case-sensitive",
    )


def _entries(answer: Mapping[str, Any], model: str) -> list[Any]:
    data = answer.get("Data")
    entries = data.get("Files") if isinstance(data, dict) else data
    if entries is None and isinstance(data, dict) and "Files" in data:
        return []
    if not isinstance(entries, list):
        raise UnusableAnswer(f"the answer of the hub for {model} has no list of files")
    return entries


def _files(entries: Iterable[Any]) -> tuple[list[ModelFile], list[str]]:
    files, problems = [], []
    for entry in entries:
        try:
            file = _file(entry)
        except (_ProblemError, UnsafePathError) as problem:
            problems.append(str(problem))
        else:
            files += [file] if file else []
    return files, problems


def _file(entry: Any) -> ModelFile | None:
    """None for a folder: the listing contains its files."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Path"), str):
        raise _ProblemError(f"an entry has no Path: {str(entry)[:80]!r}")
    path, kind, size, sha256 = entry["Path"], entry.get("Type"), entry.get("Size"), entry.get("Sha256")
    if kind == "tree":
        return None
    if kind != "blob":
        raise _ProblemError(f"{path!r} is of the unknown Type {kind!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _ProblemError(f"{path!r} has the Size {size!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _ProblemError(f"{path!r} has the Sha256 {sha256!r}, expected 64 hex digits")
    if (size == 0) != (sha256.lower() == EMPTY):
        raise _ProblemError(
            f"{path!r} has the Size {size} and the Sha256 {sha256[:12]}..., which contradict each other"
        )
    return ModelFile(path, size, sha256.lower())


def _conflicts(files: Iterable[ModelFile]) -> list[str]:
    counts = Counter(file.path for file in files)
    twice = [f"{path!r} is listed {count} times" for path, count in counts.items() if count > 1]
    parents = {str(parent) for path in counts for parent in PurePosixPath(path).parents}
    return twice + [f"{path!r} is a file and a folder" for path in counts if path in parents]
