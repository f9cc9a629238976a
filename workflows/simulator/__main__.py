"""`python -m workflows.simulator --state DIR --document FILE`: all embedded services in one process.

Prints one JSON line with their addresses once they serve, and stops when its standard input ends: a run that is killed
takes its services with it.
"""

import argparse
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from steps.document.schema import ModelService, load
from steps.ports.oss import AccessKey
from workflows.simulator.core.cluster.seed import Secret, Seed
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.cluster import EmbeddedCluster
from workflows.simulator.http.engine import SglangRuntime
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LOOPBACK, PortInUseError
from workflows.simulator.launch import Addresses

# Not a secret: the key of a bucket that exists on this machine only, for as long as a run.
ACCESS_KEY = AccessKey("slipway-local-id", "slipway-local-secret")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflows.simulator", description="Start the embedded services.")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="folder of their state")
    parser.add_argument("--document", type=Path, required=True, metavar="FILE", help="the ModelService document")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override one field; may repeat"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the Service on this machine; default any free one")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help="address of this machine for hub, bucket and Kubernetes API, so that containers and pods reach them",
    )
    options = parser.parse_args(arguments)
    try:
        serve(load(options.document, options.set), options.state, options.port, options.host)
    except PortInUseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def serve(service: ModelService, state: Path, port: int, host: str = LOOPBACK) -> None:
    """Serve until standard input ends or SIGTERM arrives. Raises PortInUseError."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    threading.Thread(target=_wait_for_end_of_input, args=(ended,), daemon=True).start()
    write_model(state / "hub" / service.model.id)
    hub = Hub(state / "hub", host=host)
    bucket = Bucket(
        state / "bucket",
        host=host,
        access_key_id=ACCESS_KEY.id,
        access_key_secret=ACCESS_KEY.secret,
        buckets=(service.store.bucket,),
        region=service.store.region,
    )
    cluster = EmbeddedCluster(state / "cluster", SglangRuntime(), state / "bucket", host=host, seed=_seed(service))
    endpoint = cluster.expose(service.namespace, service.endpoint.service, service.endpoint.port, port)
    for server in (hub, bucket, cluster):
        server.start()
    addresses = Addresses(hub.url, bucket.url, str(cluster.kubeconfig), endpoint, ACCESS_KEY.id, ACCESS_KEY.secret)
    sys.stdout.write(json.dumps(asdict(addresses)) + "\n")
    sys.stdout.flush()
    ended.wait()
    for server in (cluster, bucket, hub):
        server.stop()


def _seed(service: ModelService) -> Seed:
    """The objects that the document expects in a cluster: its namespaces, and the access key in its Secret."""
    namespace, credentials = service.workflow.namespace, service.store.credentials
    data = {"akId": ACCESS_KEY.id, "akSecret": ACCESS_KEY.secret}
    secrets = (Secret(namespace, credentials.secret, data),) if credentials.secret else ()
    return Seed(namespaces=tuple({namespace, service.namespace} - {"default"}), secrets=secrets)


def _wait_for_end_of_input(ended: threading.Event) -> None:
    # Not through sys.stdin: its lock would be held by this thread when the interpreter ends.
    while os.read(0, 1024):
        pass
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
