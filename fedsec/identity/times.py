"""The clock as certificates see it: aware UTC, whole seconds, always an argument."""

from datetime import UTC, datetime, timedelta

from fedsec.errors import ConfigError

BACKDATE = timedelta(seconds=60)  # so that a peer whose clock is a little behind accepts at once


def whole_seconds(now: datetime) -> datetime:
    """Returns `now` in UTC without its fraction of a second, as X.509 stores it.

    Raises:
        ConfigError: `now` has no time zone; taken as UTC it could be hours off.
    """
    if now.tzinfo is None:
        raise ConfigError(f"time {now.isoformat()} has no zone; pass datetime.now(UTC)")
    return now.astimezone(UTC).replace(microsecond=0)


def show_time(moment: datetime) -> str:
    """Returns an aware time as people read it in a log.

    >>> show_time(datetime(2026, 3, 1, 9, 30, tzinfo=UTC))
    '2026-03-01 09:30:00Z'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
