"""References of images: their grammar, and the version of SGLang in a tag."""

import re
from dataclasses import dataclass
from typing import Annotated

from steps.document.section import Text

# https://github.com/distribution/reference/blob/v0.6.0/regexp.go
_HOST = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-f]{32,}"
Image = Annotated[
    str,
    Text(
        rf"^(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}})?(?:@{_DIGEST})?$",
        "an image reference, registry/repository:tag or registry/repository@sha256:…, with a repository in lower case",
        longest=512,
    ),
]
# lmsysorg/sglang tags: v0.5.23-cu129, v0.5.3rc0-cu126, v0.4.6.post5-cu124. One digit before the first dot, so that a
# date (2026.11.23) is no version. https://hub.docker.com/r/lmsysorg/sglang/tags
_VERSION = re.compile(r"(?:^|[-_])v?(\d\.\d+\.\d+)(?:[-.]?(rc|post)(\d+))?(?=[-_]|$)")
_SEPARATORS = {"rc": "rc", "post": ".post", None: ""}  # as SGLang spells its own version
DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class ImageName:
    """https://github.com/distribution/reference/blob/v0.6.0/normalize.go (splitDockerDomain)."""

    registry: str  # host, with a port if it has one
    repository: str
    tag: str
    digest: str  # sha256:<hex>, or empty

    @classmethod
    def of(cls, text: str) -> "ImageName":
        name, _, digest = text.partition("@")
        folder, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        path = f"{folder}{slash}{last}"
        host, slash, rest = path.partition("/")
        if slash and (host == "localhost" or "." in host or ":" in host):
            return cls(host, rest, tag, digest)
        return cls(DOCKER_HUB, path if slash else f"library/{path}", tag, digest)

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions of SGLang in the tag: none in `latest`, perhaps two in `0.5.24-torch-2.9.0`."""
        found = (f"{match[1]}{_SEPARATORS[match[2]]}{match[3] or ''}" for match in _VERSION.finditer(self.tag))
        return tuple(dict.fromkeys(found))
