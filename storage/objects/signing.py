"""Requests to S3 are signed by the server's own clock: it takes a time that is minutes off for a false signature."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TOLERANCE: Final = timedelta(minutes=1)
"""A clock that is less far off is right. S3 servers accept up to 15 minutes."""
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"


class ServerClock:
    """How far a server's clock is ahead of ours, which may jump at any time.

    Args:
        now: our clock, in UTC.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._ahead = timedelta()

    def is_corrected_by(self, headers: Mapping[str, str]) -> bool:
        """Take over the time of an answer that refused us. Whether it is news: then the same request may succeed."""
        if "date" not in headers:
            return False
        ahead = parsedate_to_datetime(headers["date"]) - self._now()
        is_news = abs(ahead - self._ahead) > TOLERANCE
        if is_news:
            self._ahead = ahead
        return is_news

    def time_all_of(self, client: "S3Client") -> None:
        """Have everything that `client` signs, requests and links, carry this clock's time."""
        from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth  # noqa: PLC0415 - slow

        def timestamp() -> str:
            return (self._now() + self._ahead).strftime(_TIMESTAMP)

        class Timed:
            """Sets the time right before a request is signed."""

            def _modify_request_before_signing(self, request: Any) -> None:  # noqa: ANN401 - botocore's
                request.context["timestamp"] = timestamp()
                super()._modify_request_before_signing(request)  # type: ignore[misc]  # of the class beside it

        signer = f"autosequence-{id(self)}"
        AUTH_TYPE_MAPS[signer] = type("TimedAuth", (Timed, S3SigV4Auth), {})
        AUTH_TYPE_MAPS[f"{signer}-query"] = type("TimedQueryAuth", (Timed, S3SigV4QueryAuth), {})
        choose: Any = lambda **_: signer  # noqa: E731 - botocore's types know of no handler that answers
        client.meta.events.register_first("choose-signer.s3", choose)
