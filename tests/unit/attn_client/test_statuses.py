"""What a failed call means to a client: the server's reason, and when it says to come back."""

from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from attn_client.errors import MemoryRefused
from attn_client.memory.statuses import RETRY_S_MAX, failure_of
from memsvc.errors import QuotaExceeded
from memsvc.rpc.errors import status_of


class Failed(grpc.RpcError):
    """A call that failed with a status of the server's."""

    def __init__(self, retry_s: float | None) -> None:
        self._status = rpc_status.to_status(status_of(QuotaExceeded("expected less, got more", retry_s=retry_s)))

    def code(self) -> Any:
        """Its code."""
        return self._status.code

    def details(self) -> Any:
        """Its message."""
        return self._status.details

    def trailing_metadata(self) -> Any:
        """What it carries."""
        return self._status.trailing_metadata


@pytest.mark.parametrize(
    ("told_s", "kept_s"), [(None, 0.0), (0.25, 0.25), (0.0001, 0.001), (-1.0, 0.0), (1e6, RETRY_S_MAX)]
)
def test_the_time_to_come_back_is_the_servers_within_reason(told_s: float | None, kept_s: float) -> None:
    """Proves that a refusal keeps its reason and its delay, none if none is told, and none beyond a minute."""
    failure = failure_of(Failed(told_s), "attach", "unix:///x")  # type: ignore[arg-type]
    assert isinstance(failure, MemoryRefused)
    assert (failure.reason, failure.retry_s) == ("QUOTA_EXCEEDED", kept_s)
