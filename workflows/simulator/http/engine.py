"""Starts containers of the embedded cluster: a command line of SGLang becomes a simulated worker or router."""

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from workflows.simulator.core.engine import loaded_model
from workflows.simulator.core.engine.calls import Caller
from workflows.simulator.core.engine.flags import UsageError, WorkerFlags, parse_router, parse_worker
from workflows.simulator.core.engine.router import Router
from workflows.simulator.core.engine.worker import Identity, Worker
from workflows.simulator.faults.engine_faults import EngineFaults, EngineTiming
from workflows.simulator.http.client import HttpCaller
from workflows.simulator.http.router import router_app
from workflows.simulator.http.server import LOOPBACK, App, LoopbackServer
from workflows.simulator.http.worker import bootstrap_app, worker_app
from workflows.simulator.runtime import Address, Container, Dial, Exit

ABSENT_IMAGE = "does-not-exist"
VERSION = "0.5.23"  # of an image without a version in its tag
_IN_TAG = re.compile(r":v?(\d+\.\d+\.\d+(?:\.post\d+)?)")


class SglangRuntime:
    """A ContainerRuntime: every image is there, but those with `does-not-exist` in their name."""

    def __init__(self, faults: EngineFaults | None = None, timing: EngineTiming | None = None) -> None:
        self.faults = faults or EngineFaults()
        self.timing = timing or EngineTiming()

    def start(self, container: Container, dial: Dial) -> "EngineContainer":
        """Raises LookupError for an image that cannot be pulled."""
        if ABSENT_IMAGE in container.image:
            raise LookupError(f'failed to pull image "{container.image}": not found')
        started = EngineContainer(container, HttpCaller(dial), self.faults, self.timing)
        started.start()
        return started


class EngineContainer:
    """A started container, with its servers in threads of this process."""

    def __init__(self, container: Container, caller: Caller, faults: EngineFaults, timing: EngineTiming) -> None:
        self._container = container
        self._caller = caller
        self._faults = faults
        self._timing = timing
        self._servers: dict[int, LoopbackServer] = {}
        self._lines: list[str] = []
        self._exit: Exit | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def address(self, port: int) -> Address | None:
        with self._lock:
            server = self._servers.get(port)
            return (LOOPBACK, server.port) if server else None

    def exited(self) -> Exit | None:
        return self._exit

    def log(self) -> str:
        return "".join(f"{line}\n" for line in list(self._lines))

    def stop(self) -> None:
        """SIGTERM: it drains, which takes no time here, and ends."""
        if self._worker:
            self._worker.status = "draining"
        self._stopped.set()
        if self._exit is None:
            self._exit = Exit(0, "Completed")
        self._close()

    def _run(self) -> None:
        words = (*self._container.command, *self._container.args)
        module, flags = _module(words)
        start = _MODULES.get(module)
        if start is None:
            self._end(1, f"/usr/bin/python3: No module named {module}" if module else f"cannot run: {' '.join(words)}")
            return
        try:
            start(self, flags)
        except UsageError as error:
            self._end(2, str(error))
        except loaded_model.ModelLoadError as error:
            self._end(1, f"Scheduler hit an exception: Traceback (most recent call last):\n{error}")

    def run_worker(self, words: tuple[str, ...]) -> None:
        """Raises UsageError and ModelLoadError."""
        pod, faults = self._container.pod, self._faults
        flags = parse_worker(words)
        self._write_log(f"[simulated engine] server_args={flags.launch_command}")
        if faults.names(faults.crash_on_start, pod):
            self._end(1, "RuntimeError: CUDA error: out of memory (the faults of this rehearsal says so)")
            return
        if self._stopped.wait(faults.start_delay(pod)):
            return
        model = loaded_model.load(self._folder(flags.model_path), flags.model_path)
        self._write_log(f"Load weight end. {len(model.checksums)} tensors, digest {model.digest[:16]}")
        for line in self._transport(flags):
            self._write_log(line)
        identity = Identity(pod, _version(self._container.image))
        worker = Worker(identity, flags, model, self._caller, faults, self._timing, die=self._die)
        self._worker = worker
        if flags.mode == "prefill":
            self._listen(flags.bootstrap_port, bootstrap_app(worker))
        self._listen(flags.port, worker_app(worker))
        worker.warm_up()
        self._write_log("The server is fired up and ready to roll!")

    def run_router(self, words: tuple[str, ...]) -> None:
        """Raises UsageError."""
        flags = parse_router(words)
        router = Router(flags, self._caller)
        self._listen(flags.port, router_app(router))
        self._write_log(f"[simulated router] listens on {flags.port} for {len(router.workers)} workers")
        router.watch(self._stopped, self._timing.watch)

    def _transport(self, flags: WorkerFlags) -> list[str]:
        """The lines of Mooncake about its transport, which alone distinguish RDMA from TCP.

        mooncake-transfer-engine/src/transport/{tcp_transport/tcp_transport,rdma_transport/rdma_context}.cpp
        """
        if flags.mode == "null":
            return []
        found = "Topology discovery complete. Found {} HCAs."
        if flags.tcp or not flags.rdma_device or self._faults.names(self._faults.tcp_fallback, self._container.pod):
            return [found.format(0), "TcpTransport: listen on port 15995"]
        devices = flags.rdma_device.split(",")
        lines = [f"RDMA device: {device}, LID: 0, GID: (GID_Index 1) 00:00" for device in devices]
        return [found.format(len(devices)), *lines]

    def _folder(self, path: str) -> Path:
        """The path inside the container as one of this machine; an absent one for a path outside its mounts."""
        wanted = PurePosixPath(path)
        for mount, folder in sorted(self._container.mounts.items(), key=lambda entry: len(entry[0]), reverse=True):
            if wanted.is_relative_to(mount):
                return folder / wanted.relative_to(mount)
        return Path("/nonexistent") / wanted.name

    def _listen(self, port: int, app: App) -> None:
        with self._lock:
            if not self._stopped.is_set():
                self._servers[port] = LoopbackServer(app)
                self._servers[port].start()

    def _write_log(self, line: str) -> None:
        self._lines.append(line)

    def _end(self, code: int, line: str) -> None:
        self._write_log(line)
        self._exit = self._exit or Exit(code, "Error")
        self._stopped.set()

    def _die(self, line: str) -> None:
        """A worker's scheduler process dies with its server; the request that killed it gets no answer."""
        self._end(1, line)
        threading.Thread(target=self._close, daemon=True).start()

    def _close(self) -> None:
        with self._lock:
            servers = list(self._servers.values())
            self._servers.clear()
        for server in servers:
            server.stop()


_MODULES: Mapping[str, Callable[[EngineContainer, tuple[str, ...]], None]] = {
    "sglang.launch_server": EngineContainer.run_worker,
    "sglang_router.launch_router": EngineContainer.run_router,
}


def _module(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """`python3 -m MODULE FLAGS…` -> module and flags; an empty module for any other command."""
    if len(words) < 3 or not PurePosixPath(words[0]).name.startswith("python") or words[1] != "-m":  # noqa: PLR2004  # the three words
        return "", ()
    return words[2], words[3:]


def _version(image: str) -> str:
    match = _IN_TAG.search(image)
    return match[1] if match else VERSION
