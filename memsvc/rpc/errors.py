"""What each error is on the wire: one status code a class, one ErrorInfo a status.

Invariants:
    Every class of the tree has a code, its own or the nearest ancestor's; the root alone is INTERNAL by default.
    A status carries exactly one ErrorInfo: the error's reason, domain "memsvc"; and a RetryInfo where the error knows
        when trying again is worth it.
    An exception from outside the tree tells the caller a log id and nothing else.
"""

import logging
import math
import uuid

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from memsvc import errors

DOMAIN = "memsvc"

_LOGGER = logging.getLogger(__name__)


class ServerDraining(errors.MemsvcError):
    """The server is about to stop and takes on nothing new: reconnect later."""

    default_reason = "SERVER_DRAINING"


STATUS_CODES: dict[type[errors.MemsvcError], grpc.StatusCode] = {
    errors.MemsvcError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    # The code that gRPC itself answers to a message above its limit.
    errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.SessionExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleEpoch: grpc.StatusCode.ABORTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ManifestUnavailable: grpc.StatusCode.UNAVAILABLE,
    ServerDraining: grpc.StatusCode.UNAVAILABLE,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.StorageFailed: grpc.StatusCode.INTERNAL,
}


def code_of(error: errors.MemsvcError) -> grpc.StatusCode:
    """Status code of an error: that of the nearest class in the table."""
    return next(STATUS_CODES[one] for one in type(error).__mro__ if one in STATUS_CODES)


def known(error: Exception, where: str) -> errors.MemsvcError:
    """The error itself if it is of the tree; else it is logged, and a stand-in names its log id only.

    Args:
        where: Method or place, for the log.
    """
    if isinstance(error, errors.MemsvcError):
        return error
    log_id = uuid.uuid4().hex
    _LOGGER.error("%s failed, log id %s", where, log_id, exc_info=error)
    return errors.MemsvcError(f"internal error, log id {log_id}")


def status_of(error: errors.MemsvcError) -> status_pb2.Status:
    """google.rpc.Status of an error."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil(error.retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in details]
    for one, detail in zip(packed, details, strict=True):
        one.Pack(detail)
    return status_pb2.Status(code=code_of(error).value[0], message=str(error), details=packed)
