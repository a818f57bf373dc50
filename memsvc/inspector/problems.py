"""What each error is over HTTP.

Must not know: pages.
"""

from memsvc import errors

_STATUS: dict[type[errors.MemsvcError], int] = {
    errors.MemsvcError: 500,
    errors.InvalidRequest: 400,
    errors.NotFound: 404,
    errors.SessionExists: 409,
    errors.WrongState: 409,
    errors.StaleEpoch: 409,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.LimitExceeded: 400,
    errors.QuotaExceeded: 429,
    errors.DeadlineExceeded: 504,
    errors.ManifestUnavailable: 503,
}


def status_of(error: errors.MemsvcError) -> int:
    """Status of an error: that of the nearest class in the table."""
    return next(_STATUS[one] for one in type(error).__mro__ if one in _STATUS)
