"""Tokens and passwords: a document names Secrets, and holds none of their values.

Shapes of tokens: https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns
"""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_SHAPES = (
    r"LTAI[A-Za-z0-9]{12,}",  # access key of Alibaba Cloud
    r"STS\.[A-Za-z0-9]{16,}",
    r"AKIA[A-Z0-9]{16}",
    r"hf_[A-Za-z0-9]{20,}",  # Hugging Face
    r"ms-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # ModelScope
    r"sk-[A-Za-z0-9_-]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_-]{16,}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON Web Token
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@",  # URL with a password
)
_TOKEN = re.compile("|".join(rf"(?:{shape})" for shape in _SHAPES))
_NAME = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(?:API|ACCESS|SECRET|PRIVATE)_?KEY)(?:_ID)?$")
_HARMLESS = re.compile(r"|\d+|true|false|/\S*|\$\(\w+\)", re.IGNORECASE)  # a number, a switch, a path, $(VARIABLE)


def is_token(text: str) -> bool:
    return _TOKEN.search(text) is not None


def not_a_token(name: str, value: str) -> None:
    """Raises a validation error that does not show the value."""
    if is_token(value) or (_NAME.search(name.upper()) and not _HARMLESS.fullmatch(value)):
        where = f"the value of {name}" if name else "an argument"
        raise PydanticCustomError(
            "token",
            "no tokens or passwords, and {where} resembles one: every reader of pods could read it",
            {"where": where},
        )


def _without_tokens(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        not_a_token(name, value)
    return env


Env = Annotated[dict[str, str], AfterValidator(_without_tokens)]
