"""Settings of a worker: each value out of its range is named."""

from typing import Any

import pytest

from attn_client.errors import InvalidSettings
from attn_client.worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows_max", 0),
        ("rows_max", 257),
        ("queue_max", -1),
        ("tokens_max", 0),
        ("tokens_default", 0),
        ("tokens_default", 4097),
        ("prompt_tokens_max", 0),
        ("body_bytes_max", 10),
        ("writer_wait_s", -1.0),
        ("memory_wait_s", 0.0),
        ("save_wait_s", 601.0),
    ],
)
def test_a_value_out_of_its_range_is_named(field: str, value: Any) -> None:
    """Proves that the message names the field and the value."""
    with pytest.raises(InvalidSettings, match=rf"worker\.{field}: expected .*, got {value}"):
        WorkerSettings(**{field: value})
