"""Signs requests to S3 by the server's clock: the server rejects signatures whose time is minutes off."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

TOLERANCE: Final = timedelta(minutes=1)
"""A smaller difference of the clocks is ignored. S3 servers accept up to 15 minutes."""
MAX_ATTEMPTS: Final = 3
"""A request is not signed again after so many attempts: the clocks of the servers behind one address may differ."""
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"


class ServerClock:
    """The clock of a server, by its difference from the local clock, which may jump at any time.

    Args:
        now: the local clock, in UTC.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._ahead = timedelta()

    def timestamp(self) -> str:
        """The time of the server, as far as it is known, as signatures have it."""
        return (self._now() + self._ahead).strftime(_TIMESTAMP)

    def correct(self, timestamp: str, headers: Mapping[str, str]) -> bool:
        """Take the server's time from the headers of a rejection. Returns whether a new signature may be accepted.

        Args:
            timestamp: of the rejected signature. Another thread may have corrected this clock since.
            headers: of the response.
        """
        if "date" not in headers:
            return False
        server = parsedate_to_datetime(headers["date"])
        off = datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC) - server
        if abs(off) <= TOLERANCE:
            return False
        self._ahead = server - self._now()
        off_s = -self._ahead.total_seconds()
        log.warning("this machine's clock is %+.0f s off; signing with the clock of the S3 server", off_s)
        return True

    def attach(self, client: "S3Client") -> None:
        """Make `client` sign requests and presigned URLs by this clock, and repeat what is rejected for its time."""
        from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth  # noqa: PLC0415 - slow

        timestamp = self.timestamp

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
        again: Any = self._delay_of_retry
        client.meta.events.register_first("needs-retry.s3", again)

    def _delay_of_retry(self, *, response: Any, attempts: int, request_dict: Any, **_: Any) -> int | None:  # noqa: ANN401 - botocore's
        """The seconds until the next attempt at a request that was rejected for its time, for botocore's endpoint.

        Detected by the time alone: the response to a HEAD has no body with a code.
        """
        if response is None or response[0].status_code != HTTPStatus.FORBIDDEN or attempts >= MAX_ATTEMPTS:
            return None
        return 0 if self.correct(request_dict["context"]["timestamp"], response[0].headers) else None
