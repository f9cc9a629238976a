"""Access to the API server: from a kubeconfig, or from the service account of this pod."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from steps.errors import Blocked


@dataclass(frozen=True)
class ApiAccess:
    """Settings of a plain HTTP client for the API server, for example for the proxy of a pod."""

    url: str  # without a slash at its end
    verify: bool | str  # file of CA certificates; True: the system's; False: the kubeconfig turns verification off
    cert: tuple[str, str] | None  # files of client certificate and key
    _configuration: Configuration = field(repr=False, compare=False)

    @property
    def headers(self) -> dict[str, str]:
        """Read them for each request: the token of a service account is replaced about once an hour."""
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}


def api_access(kubeconfig: Path | None) -> ApiAccess:
    """Raises Blocked for an absent or unusable kubeconfig."""
    configuration = client_configuration(kubeconfig)
    certificate, key = configuration.cert_file, configuration.key_file
    return ApiAccess(
        url=configuration.host.rstrip("/"),
        verify=(configuration.ssl_ca_cert or True) if configuration.verify_ssl else False,
        cert=(certificate, key) if certificate and key else None,
        _configuration=configuration,
    )


def client_configuration(kubeconfig: Path | None) -> Configuration:
    """Configuration of the official client; None means the service account of this pod.

    Raises Blocked for an absent or unusable kubeconfig.
    """
    configuration = Configuration()
    configuration.retries = False  # the adapter retries; urllib3 would do it without pause
    if kubeconfig is None:
        _load_service_account(configuration)
    else:
        _load_kubeconfig(kubeconfig, configuration)
    return configuration


def _load_service_account(configuration: Configuration) -> None:
    try:
        load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise Blocked(
            f"cannot use the service account of this pod: {error}",
            "outside a cluster, set KUBECONFIG; in a pod, check automountServiceAccountToken of its service account",
        ) from error


def _load_kubeconfig(kubeconfig: Path, configuration: Configuration) -> None:
    # KUBECONFIG may name several files, as for kubectl.
    if not any(Path(part).is_file() for part in str(kubeconfig).split(os.pathsep)):
        raise Blocked(
            f"there is no kubeconfig at {kubeconfig}",
            "set KUBECONFIG to the kubeconfig of your cluster; a local run sets it itself",
        )
    try:
        load_kube_config(config_file=str(kubeconfig), client_configuration=configuration, persist_config=False)
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # The loader of the client does not check the shape of the file: a wrong one raises any of these.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Blocked(
            f"the kubeconfig {kubeconfig} is unusable: {reason}", "check it with `kubectl --kubeconfig FILE version`"
        ) from error
