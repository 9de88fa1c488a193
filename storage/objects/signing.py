"""Signs requests to S3 by the server's clock: the server rejects signatures whose time is minutes off."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TOLERANCE: Final = timedelta(minutes=1)
"""A smaller difference of the clocks is ignored. S3 servers accept up to 15 minutes."""
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"


class ServerClock:
    """The clock of a server, by its difference from the local clock, which may jump at any time.

    Args:
        now: the local clock, in UTC.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._ahead = timedelta()

    def correct(self, headers: Mapping[str, str]) -> bool:
        """Take the time from the headers of a rejection. Returns whether it changed: a retry may then succeed."""
        if "date" not in headers:
            return False
        ahead = parsedate_to_datetime(headers["date"]) - self._now()
        is_new = abs(ahead - self._ahead) > TOLERANCE
        if is_new:
            self._ahead = ahead
        return is_new

    def attach(self, client: "S3Client") -> None:
        """Make `client` sign its requests and presigned URLs with the time of this clock."""
        from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth  # noqa: PLC0415 - slow

        def timestamp() -> str:
            return (self._now() + self._ahead).strftime(_TIMESTAMP)

        class Timed:
            """Sets the time of a request right before it is signed."""

            def _modify_request_before_signing(self, request: Any) -> None:  # noqa: ANN401 - botocore's
                request.context["timestamp"] = timestamp()
                super()._modify_request_before_signing(request)  # type: ignore[misc]  # that of the other base class

        signer = f"autosequence-{id(self)}"
        AUTH_TYPE_MAPS[signer] = type("TimedAuth", (Timed, S3SigV4Auth), {})
        AUTH_TYPE_MAPS[f"{signer}-query"] = type("TimedQueryAuth", (Timed, S3SigV4QueryAuth), {})
        choose: Any = lambda **_: signer  # noqa: E731 - botocore's types lack handlers with a result
        client.meta.events.register_first("choose-signer.s3", choose)
