"""The configuration of an image, read from its registry without user and password.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
https://distribution.github.io/distribution/spec/auth/token/
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from steps.document.image_name import DOCKER_HUB, ImageName
from steps.errors import TransientError

SECONDS = 10.0  # for one query, with its name resolution
LARGEST = 4 * 1024 * 1024  # bytes of one answer: the limit of a manifest in the specification
_ON_DOCKER_HUB = "registry-1.docker.io"
_PLATFORM = {"os": "linux", "architecture": "amd64"}
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LOOPBACK = ("127.0.0.1", "localhost")


class OciRegistry:
    """Implements `steps.ports.registry.ImageRegistry`; `seconds` limit one query."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds

    def config(self, image: ImageName) -> Mapping[str, Any]:
        """Raises TransientError if the registry does not answer, refuses, or answers without an image."""
        # A thread, because no timeout of a connection limits its name resolution.
        query = _Query(image, time.monotonic() + self._seconds)
        thread = threading.Thread(target=query.send, daemon=True)
        thread.start()
        thread.join(self._seconds)
        if query.answer is None:
            raise TransientError(query.error or f"{image.registry} did not answer within {self._seconds:g} s")
        return query.answer


class _Query:
    def __init__(self, image: ImageName, until: float) -> None:
        self.answer: Mapping[str, Any] | None = None
        self.error = ""
        self._image = image
        self._until = until
        self._token = ""
        host = _ON_DOCKER_HUB if image.registry == DOCKER_HUB else image.registry
        # Like Docker and containerd, plain HTTP only with a registry on this machine.
        scheme = "http" if host.partition(":")[0] in _LOOPBACK else "https"
        self._base = f"{scheme}://{host}/v2/{image.repository}"

    def send(self) -> None:
        try:
            manifest = self._manifest(self._image.digest or self._image.tag or "latest")
            if "manifests" in manifest:
                manifest = self._manifest(_of_platform(manifest["manifests"]))
            self.answer = dict(json.loads(self._blob(manifest["config"]["digest"])))
        except _Refused as error:
            self.error = f"{self._image.registry} {error}"
        except (requests.RequestException, HTTPError, OSError) as error:
            self.error = f"{self._image.registry} cannot be reached ({type(error).__name__})"
        except (ValueError, LookupError, TypeError, AttributeError):
            self.error = f"{self._image.registry} sent no image of {self._image.repository}"

    def _manifest(self, reference: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self._get(f"{self._base}/manifests/{reference}"))
        return found

    def _blob(self, digest: str) -> bytes:
        body = self._get(f"{self._base}/blobs/{digest}")
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise _Refused("sent another configuration than the one of its manifest")
        return body

    def _get(self, url: str) -> bytes:
        reply = self._send(url, self._token)
        if reply.status_code == HTTPStatus.UNAUTHORIZED and not self._token:
            self._token = self._request_token(reply.headers.get("WWW-Authenticate", ""))
            reply = self._send(url, self._token)
        if reply.is_redirect:  # to another host, which never gets the token
            reply = self._send(_secure(reply.headers["Location"]), "")
        return self._body(reply)

    def _request_token(self, challenge: str) -> str:
        """An anonymous token, which opens public images only."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if not challenge.lower().startswith("bearer ") or "realm" not in fields:
            raise _Refused("requires user and password")
        query = {"service": fields.get("service", ""), "scope": f"repository:{self._image.repository}:pull"}
        found = json.loads(self._body(self._send(_secure(fields["realm"]), "", query)))
        return str(found.get("token") or found["access_token"])

    def _send(self, url: str, token: str, query: Mapping[str, str] | None = None) -> requests.Response:
        headers = {"Accept": ", ".join((*_MANIFESTS, "*/*")), **({"Authorization": f"Bearer {token}"} if token else {})}
        left = max(0.01, self._until - time.monotonic())
        # `auth`: without it, requests sends the .netrc entry of the host.
        return requests.get(
            url, params=query, headers=headers, timeout=left, stream=True, allow_redirects=False, auth=lambda sent: sent
        )

    def _body(self, reply: requests.Response) -> bytes:
        with reply:
            if reply.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise _Refused("requires user and password for this image")
            if reply.status_code != HTTPStatus.OK:
                raise _Refused(f"answered with status {reply.status_code}")
            body = bytearray()
            for piece in reply.iter_content(1 << 16):
                body += piece
                if len(body) > LARGEST or time.monotonic() > self._until:
                    raise _Refused(f"sent more than {LARGEST} bytes, or took too long")
            return bytes(body)


class _Refused(Exception):
    """A predicate without its subject, the registry."""


def _of_platform(entries: list[Any]) -> str:
    """The digest of the image for our nodes; the first one of an index without platforms."""
    for entry in entries:
        if _PLATFORM.items() <= (entry.get("platform") or {}).items():
            return str(entry["digest"])
    return str(entries[0]["digest"])


def _secure(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url
    raise _Refused("redirects to an address without TLS")
