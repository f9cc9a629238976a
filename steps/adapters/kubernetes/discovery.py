"""Discovery of the resource of a kind, in its one group and version.

The client's own discoverers read `/version` and every group, and cache the result in a temporary file that is named by
host alone: another server on the same address would inherit it.
"""

from typing import Any

from kubernetes.dynamic import DynamicClient, Resource

from steps.adapters.kubernetes.errors import ApiRequest, no_json


class Discovery:
    """Discovery on demand for `DynamicClient(discoverer=Discovery)`; lives as long as the process."""

    def __init__(self, client: DynamicClient, _cache_file: str | None = None) -> None:
        self._client = client
        self._served: dict[str, dict[str, Resource]] = {}

    def get(self, api_version: str, kind: str, **request: Any) -> Resource | None:
        """None if the group version does not serve the kind. An absent kind is queried each time: a CRD may arrive.

        Raises NotFoundError for an absent group version, TransientError for an answer without JSON.
        """
        known = self._served.get(api_version, {})
        if kind not in known:
            known = self._served[api_version] = self._ask(api_version, **request)
        return known.get(kind)

    def _ask(self, api_version: str, **request: Any) -> dict[str, Resource]:
        group, _, version = api_version.rpartition("/")
        prefix = "apis" if group else "api"
        path = f"/{prefix}/{api_version}"
        found = self._client.request("get", path, serializer=lambda _, plain: plain, **request)
        if not isinstance(found, dict):
            raise no_json(ApiRequest("get", path), found)
        return {
            entry["kind"]: Resource(
                prefix=prefix,
                group=group,
                api_version=version,
                kind=entry["kind"],
                namespaced=entry["namespaced"],
                name=entry["name"],
                client=self._client,
            )
            for entry in found["resources"]
            if "/" not in entry["name"]  # those are subresources
        }
