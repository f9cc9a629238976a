"""How long things take in the embedded cluster that take far longer in a real one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterTiming:
    """Durations are in seconds."""

    probe_scale: float = 0.02  # factor on the period and the initial delay of a probe: 10 s become 0.2 s
    shortest_period: float = 0.05
    patience: float = 30.0  # at least, before a container without a good answer is killed: machines are not scaled
    crash_backoff: float = 0.5  # before the second restart; doubles with each one
    longest_crash_backoff: float = 8.0
    pull_backoff: float = 0.5  # between two attempts to pull an image
    mount_retry: float = 0.2
    operator: float = 0.15  # between two turns of the RBG operator for one group
    flap: float = 0.15  # how long Ready is False again after a group was first ready
    reboot: float = 20.0  # how long the pods of an earlier process may take to be ready again before the API answers


FAST = ClusterTiming(
    probe_scale=0.002,
    shortest_period=0.02,
    crash_backoff=0.1,
    longest_crash_backoff=0.2,
    pull_backoff=0.1,
    mount_retry=0.05,
    operator=0.03,
    flap=0.03,
)
