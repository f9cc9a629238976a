"""The registry of container images."""

from collections.abc import Mapping
from typing import Any, Protocol

from steps.document.image_name import ImageName


class ImageRegistry(Protocol):
    def config(self, image: ImageName) -> Mapping[str, Any]:
        """The configuration of an image: https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md."""
        ...
