"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# By default, Hypothesis fails an example that takes 0.2 s, and a slow search: no promise of ours, on any machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
