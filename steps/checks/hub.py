"""Does a refreshed model hold code without an approval?

An engine runs the Python files of a repository if its configuration names them (`auto_map`, of a foreign repository
too: `owner/name--file.Class`), and loading a pickle runs its content. A hub may change both under the name of a
branch.
https://huggingface.co/docs/transformers/custom_models
https://docs.python.org/3/library/pickle.html
"""

import json
from collections.abc import Callable
from typing import Any

from steps.checks.facts import PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.model import Listing, ModelFile
from steps.release import Release

# Python, native code, and what torch.load or pickle reads.
CODE = (".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
CONFIGURATION = "config.json"  # also of a tokenizer or a processor: tokenizer_config.json
LARGEST_CONFIGURATION = 1024 * 1024  # bytes; larger ones are taken for code instead of being read
_MOST_SHOWN = 5

Read = Callable[[ModelFile], bytes]


def changed_code(served: Listing, wanted: Listing, read_served: Read, read_wanted: Read) -> tuple[str, ...]:
    """Paths of the wanted files that hold or name code, and are new or other than what serves."""
    before = {file.path: file for file in served.files}
    changed = [file for file in wanted.files if before.get(file.path) != file]
    return tuple(
        file.path
        for file in changed
        if file.path.lower().endswith(CODE)
        or (file.path.endswith(CONFIGURATION) and _names_other_code(file, before, read_served, read_wanted))
    )


def code_of_model(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Code that is new since the release that serves is approved by its digest in the document."""
    code = facts.code
    if isinstance(code, Refusal):
        return (Fail(code.reason, "the files that serve, to compare the code in them"),)
    if not code.changed:
        return (Pass(code.known or "the code of the model is what serves already"),)
    shown = ", ".join(code.changed[:_MOST_SHOWN])
    more = f" and {len(code.changed) - _MOST_SHOWN} more" if len(code.changed) > _MOST_SHOWN else ""
    if release.service.model.digest == release.model_digest:
        return (Pass(f"model.digest approves the code in {shown}{more}"),)
    return (
        Fail(
            f"code that is not what serves: {shown}{more}",
            f"an approval of these files in the document: model.digest: {release.model_digest}",
        ),
    )


def _names_other_code(file: ModelFile, before: dict[str, ModelFile], read_served: Read, read_wanted: Read) -> bool:
    if file.size > LARGEST_CONFIGURATION:
        return True
    named = _auto_map(read_wanted(file))
    old = before.get(file.path)
    return named is not None and (old is None or named != _auto_map(read_served(old)))


def _auto_map(body: bytes) -> Any:
    """The classes that a configuration takes from code; None if it names none. A text that is no JSON object stands for itself."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return found.get("auto_map") if isinstance(found, dict) else body
