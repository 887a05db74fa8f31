"""The access token of a client: where it comes from, until when it is used, and what replaces it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: A token is not used for a handshake in the last seconds of its life.
EXPIRY_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class Tokens:
    """What a login returns."""

    token: str
    #: ISO 8601, or seconds since the epoch. Default: as the gateway says.
    expires_at: datetime | str | float | None = None
    #: Handed over to the gateway, which refreshes the access token from then on: the identity provider must be
    #: configured for it (``refresh_token`` mode), and the application must not use this refresh token itself.
    refresh_token: str | None = None


Token = str | Tokens | None
#: Returns an access token, alone or as ``Tokens``, or None if the user has signed out. Its argument, which it may omit,
#: is the token that is no longer valid.
GetToken = Callable[[str | None], "Token | Awaitable[Token]"] | Callable[[], "Token | Awaitable[Token]"]


class TokenSource:
    """Gets tokens from ``get_token``, and keeps the latest one with what the gateway says about it."""

    def __init__(self, get_token: GetToken) -> None:
        self._get_token = get_token
        self._wants_previous = _accepts_an_argument(get_token)
        self._token: str | None = None
        self._refresh_token: str | None = None
        self._previous: str | None = None
        self._expires_at = float("inf")
        self._was_accepted = False

    @property
    def has_refresh_token(self) -> bool:
        return self._refresh_token is not None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the message that presents the token."""
        handed_over = {} if self._refresh_token is None else {"refresh_token": self._refresh_token}
        return {"token": self._token, **handed_over}

    async def current(self) -> str | None:
        """Returns a token for a handshake; None if the user has signed out. Raises what ``get_token`` raises."""
        if self._token is not None and time.time() < self._expires_at - EXPIRY_MARGIN_SECONDS:
            return self._token
        return await self.fresh()

    async def fresh(self) -> str | None:
        """Gets another token; None if the user has signed out. Raises what ``get_token`` raises."""
        previous = (self._previous or self._token,) if self._wants_previous else ()
        found = self._get_token(*previous)
        answer = await found if inspect.isawaitable(found) else found
        tokens = answer if isinstance(answer, Tokens) else Tokens(answer) if answer is not None else None
        self._token = tokens.token if tokens else None
        self._refresh_token = tokens.refresh_token if tokens else None
        self._expires_at = _time_of(tokens.expires_at if tokens else None)
        self._was_accepted = False
        return self._token

    def accepted(self, expires_at: Any) -> None:
        """The gateway has accepted the token. ``expires_at`` is its expiry as the gateway says, or None."""
        self._was_accepted = True
        if expires_at is not None:
            self._expires_at = _time_of(expires_at)

    def refreshed(self, token: str, fields: Mapping[str, Any]) -> Tokens | None:
        """Stores the token of a ``token_refreshed``. Returns it with its refresh token; None if it has none."""
        self._token = token
        self._expires_at = float("inf")
        expires_at = fields.get("token_expires_at")
        self.accepted(expires_at)
        if isinstance(fields.get("refresh_token"), str):
            self._refresh_token = fields["refresh_token"]
        return None if self._refresh_token is None else Tokens(token, expires_at, self._refresh_token)

    def forget(self) -> bool:
        """Forgets a refused token. Returns whether a fresh one may be accepted, since this one had been before."""
        may_help = self._was_accepted
        self._previous, self._token, self._was_accepted = self._token, None, False
        return may_help


def _accepts_an_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:
        # Functions in C may have no signature.
        pass
    return True


def _time_of(value: Any) -> float:
    """Seconds since the epoch. An expiry that is missing or no time is none: the gateway refuses an expired token."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.timestamp() if isinstance(moment, datetime) else float(moment)
    except (TypeError, ValueError):
        return float("inf")
