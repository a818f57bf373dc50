"""Errors on the wire: every class has its code, and a caller never sees more than it should."""

import logging

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from memsvc import errors
from memsvc.rpc.errors import DOMAIN, STATUS_CODES, ServerDraining, code_of, known, status_of


def _tree() -> list[type[errors.MemsvcError]]:
    found = [errors.MemsvcError]
    for parent in found:
        found += parent.__subclasses__()
    return found


@pytest.mark.parametrize("error", _tree()[1:])
def test_each_class_has_a_code_below_the_root(error: type[errors.MemsvcError]) -> None:
    """Proves that the table is total: the class or a parent other than the root stands in it."""
    assert any(one in STATUS_CODES for one in error.__mro__ if one is not errors.MemsvcError and one in _tree())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MemsvcError, grpc.StatusCode.INTERNAL),
        (errors.PositionOutOfOrder, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.MessageTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.BlockNotFound, grpc.StatusCode.NOT_FOUND),
        (errors.SessionExists, grpc.StatusCode.ALREADY_EXISTS),
        (errors.TailIncomplete, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.StaleEpoch, grpc.StatusCode.ABORTED),
        (errors.LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.ManifestUnavailable, grpc.StatusCode.UNAVAILABLE),
        (ServerDraining, grpc.StatusCode.UNAVAILABLE),
        (errors.CorruptBlock, grpc.StatusCode.DATA_LOSS),
        (errors.StorageFailed, grpc.StatusCode.INTERNAL),
    ],
)
def test_codes_are_those_that_the_protos_name(error: type[errors.MemsvcError], code: grpc.StatusCode) -> None:
    """Proves the code of one class of each branch."""
    assert code_of(error("expected 1, got 2")) is code


@pytest.mark.parametrize("error", _tree())
def test_a_status_carries_one_error_info(error: type[errors.MemsvcError]) -> None:
    """Proves that reason, domain, message and code travel in a status that gRPC takes as it is."""
    status = status_of(error("expected 1, got 2"))
    (detail,) = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.reason, info.domain, status.message) == (error.default_reason, DOMAIN, "expected 1, got 2")
    assert rpc_status.to_status(status).code is code_of(error("expected 1, got 2"))


def test_a_stranger_is_told_a_log_id_only(caplog: pytest.LogCaptureFixture) -> None:
    """Proves that an exception from outside the tree is logged under an id, and that its text stays here."""
    with caplog.at_level(logging.ERROR):
        told = known(ZeroDivisionError("secret"), "Attach")
    log_id = str(told).rpartition(" ")[2]
    assert (told.reason, "secret" in str(told)) == ("INTERNAL", False)
    assert log_id in caplog.text
    assert "secret" in caplog.text


def test_an_error_of_the_tree_stays_itself() -> None:
    """Proves that a known error passes unchanged."""
    error = errors.StaleEpoch("expected epoch 2, got 1")
    assert known(error, "Attach") is error
