"""What one process cost, as the kernel counted it: CPU time, memory at its peak, bytes written to disk."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO


class ClientFailedError(Exception):
    """A measured process failed; its output is in the log."""


@dataclass(frozen=True)
class Cost:
    cpu: float  # seconds, user and system
    wall: float  # seconds
    rss: int  # KiB, of the process that had most at its peak
    disk: int  # bytes


@dataclass(frozen=True)
class Command:
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def in_turn(commands: Sequence[Command], log: IO[bytes]) -> Cost:
    """One after another: everything adds up, except the memory."""
    return _sum([together([command], log) for command in commands], wall=sum)


def together(commands: Sequence[Command], log: IO[bytes]) -> Cost:
    """All at the same time. Raises ClientFailedError."""
    started = time.monotonic()
    processes = [
        (command, subprocess.Popen(command.arguments, env=dict(command.environment), stdout=log, stderr=log))
        for command in commands
    ]
    return _sum([_ended(command, process, started) for command, process in processes], wall=max)


def _ended(command: Command, process: subprocess.Popen[bytes], started: float) -> Cost:
    # Not reaped yet, so that /proc still has its count of bytes.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - started
    disk = _written(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ClientFailedError(f"{' '.join(command.arguments)} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss, disk)


def _written(pid: int) -> int:
    """Bytes that the process made dirty on block devices; https://man7.org/linux/man-pages/man5/proc_pid_io.5.html"""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, user and system; https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sum(costs: Sequence[Cost], wall: Callable[[Iterable[float]], float]) -> Cost:
    return Cost(
        cpu=sum(cost.cpu for cost in costs),
        wall=wall(cost.wall for cost in costs),
        rss=max(cost.rss for cost in costs),
        disk=sum(cost.disk for cost in costs),
    )
