"""The feed of the usage ledger, for billing teams."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .errors import TollgateError

TIMEOUT_SECONDS = 40
MAX_RETRY_SECONDS = 20.0


@dataclass(frozen=True)
class LedgerPage:
    """Records, and the cursor and hash to store in the same transaction."""

    records: tuple[dict[str, Any], ...]
    #: Continue from here. Store it together with the records.
    cursor: str | None
    #: Hash of the last record, from which the next page is verified.
    last_hash: str | None
    has_more: bool


class LedgerFeed:
    """Reads ``GET /v1/usage/records`` page by page, verifies the hash chain and detects gaps.

    ``get_token`` returns a service token with the scope ``usage:read``.
    """

    def __init__(self, url: str, get_token: Callable[[], str]) -> None:
        self._url = url.rstrip("/")
        self._get_token = get_token

    def pull(
        self, *, cursor: str | None = None, last_hash: str | None = None, limit: int = 1000, follow: bool = False
    ) -> Iterator[LedgerPage]:
        """Yields pages until the end of the ledger; with ``follow`` it then waits for further records.

        Pass the ``cursor`` and ``last_hash`` that were stored with the last page. Raises LEDGER_GAP if records are
        missing after the cursor, and LEDGER_CHAIN_BROKEN if a record does not follow from the one before: do not
        continue before you have checked the ledger with ``GET /v1/usage/verify``.
        """
        while True:
            page = self._page(cursor, last_hash, limit, wait=20 if follow else 0)
            if page.records:
                yield page
            elif not follow:
                return
            cursor, last_hash = page.cursor, page.last_hash
            if not page.has_more and not follow:
                return

    def confirm(self, consumer: str, cursor: str) -> None:
        """Confirms that the consumer has stored everything up to the cursor, so that the ledger may trim it."""
        body = json.dumps({"cursor": cursor}).encode()
        self._request(f"/v1/usage/cursors/{consumer}", method="PUT", body=body)

    def _page(self, cursor: str | None, last_hash: str | None, limit: int, wait: int) -> LedgerPage:
        query = urlencode({"limit": limit, "wait": wait, **({"cursor": cursor} if cursor else {})})
        headers, text = self._request(f"/v1/usage/records?{query}", accept="application/x-ndjson")
        if headers.get("X-Gap-Detected") == "true":
            raise TollgateError("LEDGER_GAP", "Records are missing after the cursor.", retryable=False)
        records = []
        for line in text.splitlines():
            record = json.loads(line)
            # Without the hash of the record before, the first record of the page cannot be verified.
            is_verifiable = last_hash is not None or record["sequence"] == 1
            if is_verifiable and not _follows(line, record["hash"], last_hash):
                message = f"Record {record['sequence']} does not follow from the one before."
                raise TollgateError("LEDGER_CHAIN_BROKEN", message, retryable=False, fields={"record": record})
            last_hash = record["hash"]
            records.append(record)
        return LedgerPage(
            tuple(records), headers.get("X-Next-Cursor") or cursor, last_hash, headers.get("X-Has-More") == "true"
        )

    def _request(
        self, path: str, *, method: str = "GET", body: bytes | None = None, accept: str = "application/json"
    ) -> tuple[Any, str]:
        """Repeats after an outage or a busy gateway, until MAX_RETRY_SECONDS have passed."""
        deadline = time.monotonic() + MAX_RETRY_SECONDS
        delay = 0.5
        while True:
            headers = {"Authorization": f"Bearer {self._get_token()}", "Accept": accept}
            if body is not None:
                headers["Content-Type"] = "application/json"
            request = urllib.request.Request(self._url + path, body, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                    return response.headers, response.read().decode()
            except urllib.error.HTTPError as error:
                failure = _failure(error)
            except OSError as error:
                failure = TollgateError("UNREACHABLE", str(error), retryable=True)
            if not failure.retryable or time.monotonic() + delay > deadline:
                raise failure
            time.sleep(delay)
            delay = min(2 * delay, 5.0)


def _failure(error: urllib.error.HTTPError) -> TollgateError:
    try:
        parsed = json.loads(error.read().decode())
        return TollgateError.from_fields(parsed.get("error", parsed))
    except (ValueError, AttributeError):
        return TollgateError(f"HTTP_{error.code}", retryable=error.code >= 500)


def _follows(line: str, stored: str, before: str | None) -> bool:
    """Verifies ``hash``: SHA-256 of the previous hash, a line break, and the record's JSON without ``hash``.

    The text of the line is used as it came: another serialization could differ in a single byte.
    """
    member = re.compile(rf',"hash":"{re.escape(stored)}"')
    without = member.sub("", line, count=1)
    return hashlib.sha256(f"{before or ''}\n{without}".encode()).hexdigest() == stored
