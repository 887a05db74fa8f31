"""Pulls the usage ledger and prints its sequences as JSON, or the code of the error.

Usage: pull_ledger.py URL SERVICE_TOKEN LIMIT [CURSOR LAST_HASH]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tollgate_client import LedgerFeed, TollgateError  # noqa: E402


def main() -> None:
    url, token, limit, *stored = sys.argv[1:]
    cursor, last_hash = stored or (None, None)
    sequences: list[int] = []
    try:
        for page in LedgerFeed(url, lambda: token).pull(cursor=cursor, last_hash=last_hash, limit=int(limit)):
            sequences += [record["sequence"] for record in page.records]
            cursor, last_hash = page.cursor, page.last_hash
    except TollgateError as error:
        print(json.dumps({"error": error.code, "sequences": sequences}))
        return
    print(json.dumps({"sequences": sequences, "cursor": cursor, "last_hash": last_hash}))


main()
