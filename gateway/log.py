"""Structured logs: one JSON line a record, on standard error."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
from aiohttp.http import HttpProcessingError


class JsonFormatter(logging.Formatter):
    """One JSON line a record; prompts and keys never get into a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class _NotWhatCallersSent(logging.Filter):
    """A request that is no HTTP is told by its kind only: its text may hold a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "a request is not HTTP: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def of_server() -> logging.Logger:
    """The logger for the HTTP server."""
    logger = logging.getLogger("gateway.http")
    if not logger.filters:
        logger.addFilter(_NotWhatCallersSent())
    return logger


def configure() -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
