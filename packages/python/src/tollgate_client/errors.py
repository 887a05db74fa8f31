"""Errors of the gateway and of this client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .protocol import RETRYABLE_CODES


class TollgateError(Exception):
    """An error of the gateway or of this client. Branch on ``code``, never on the message."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        retryable: bool | None = None,
        retry_after_ms: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message or code
        #: Whether the same request can succeed later.
        self.retryable = code in RETRYABLE_CODES if retryable is None else retryable
        #: Delay that the gateway asks for.
        self.retry_after_ms = retry_after_ms
        #: Further fields of the gateway's error, such as ``resets_at`` or ``upgrade_path``.
        self.fields: Mapping[str, Any] = fields or {}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> TollgateError:
        """Converts the fields of an error that the gateway sent."""
        known = {"code", "message", "retryable", "retry_after_ms"}
        return cls(
            str(fields.get("code", "INTERNAL_ERROR")),
            fields.get("message"),
            retryable=fields.get("retryable"),
            retry_after_ms=fields.get("retry_after_ms"),
            fields={name: value for name, value in fields.items() if name not in known},
        )


class ConnectionStoppedError(TollgateError):
    """The connection ended and does not reconnect by itself: evicted, signed out, refused or closed."""


class RunFailedError(TollgateError):
    """The run ended with ``agent_failed`` or ``agent_cancelled``."""


class EventsLostError(TollgateError):
    """The event log no longer contains all events of the run. The thread's history has its answer if it completed."""
