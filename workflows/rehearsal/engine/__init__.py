"""The embedded PD engine: simulated SGLang workers and router, with their real endpoints, counters and failures."""

from workflows.rehearsal.engine.runtime import EngineContainer, SglangRuntime
from workflows.rehearsal.engine.script import Script, Timing

__all__ = ["EngineContainer", "Script", "SglangRuntime", "Timing"]
