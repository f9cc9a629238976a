"""Fields of Kubernetes that the document may set on pods: an allow-list, with Kubernetes' own names."""

from typing import Annotated, Any

from pydantic import Field

from steps.document.section import AsTuple, Name, Section


class ImagePullSecret(Section):
    name: Name = Field(description="Secret of type kubernetes.io/dockerconfigjson, in the namespace of the pods.")


class Pod(Section):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec"""

    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that a node must have.")
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], AsTuple] = Field(
        (), description="Secrets with the passwords of image registries."
    )

    @property
    def spec(self) -> dict[str, Any]:
        """These fields as a pod template has them; absent where the document leaves them out."""
        return self.model_dump(by_alias=True, mode="json", exclude_defaults=True)
