"""The coordinator's log: one JSON object per line in a file, one line for people on stderr.

Whatever a peer can put into a message (names, addresses, reasons) is escaped in both, so that no
line can be forged and no terminal steered. Keys, tokens and update vectors never enter a log.
"""

import json
import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from fedsec.console import safe

_MAX_BYTES = 20 << 20
_KEPT = 5
_HUMAN = 500  # characters of one line on stderr; the file has all of it
_HANDLERS = "fedsec-log"
_FIELDS = "event"  # attribute of a log record: the fields of an event


class JsonLine(logging.Formatter):
    """A record as one line of ASCII JSON: at, level, logger, message, and an event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line. JSON escapes every control character and all that is not ASCII."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class HumanLine(logging.Formatter):
    """A record as one line for people; a traceback, which is ours, follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, with control characters shown as escapes."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{at} {level}{safe(record.getMessage(), limit=_HUMAN)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(safe(each, limit=_HUMAN) for each in trace)])
        return line


def log_to(path: Path, *, level: int = logging.INFO) -> None:
    """Sends the log of this process to `path` (mode 0600, rotated at 20 MiB, 5 kept) and stderr.

    Called again, it replaces what it did before.
    """
    root = logging.getLogger()
    stop_logging()
    file = _PrivateFile(path, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="ascii")
    file.setFormatter(JsonLine())
    human = logging.StreamHandler(sys.stderr)
    human.setFormatter(HumanLine())
    for handler in (file, human):
        handler.set_name(f"{_HANDLERS}-{type(handler).__name__}")
        root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def stop_logging() -> None:
    """Takes back what `log_to` did."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if (each.name or "").startswith(_HANDLERS)]:
        root.removeHandler(handler)
        handler.close()


def event_fields(**fields: object) -> dict[str, dict[str, object]]:
    """Returns the `extra` of a logging call that carries the fields of an event."""
    return {_FIELDS: fields}


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """Makes its files with mode 0600, whatever the umask is."""

    _told = False

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return open(descriptor, "a", encoding=self.encoding)  # noqa: PTH123 - a descriptor

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name
        """Says once that the disk takes no more; the line itself goes to stderr as well."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"{self.baseFilename} takes no more lines: {error.strerror}\n")
