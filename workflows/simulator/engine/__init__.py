"""The embedded PD engine: simulated SGLang workers and router, with their real endpoints, counters and failures."""

from workflows.simulator.engine.runtime import EngineContainer, SglangRuntime
from workflows.simulator.engine.script import Script, Timing

__all__ = ["EngineContainer", "Script", "SglangRuntime", "Timing"]
