"""How deep state machines search: PROPERTY_DEPTH times as many examples as in an ordinary run."""

import os

from hypothesis import HealthCheck, settings


def machine_settings(examples: int, steps: int) -> settings:
    """Of one machine; `examples` and `steps` are those of an ordinary run."""
    depth = int(os.environ.get("PROPERTY_DEPTH", "1"))
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=depth * examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)
