"""The rendered requests against those of the gateway, which test/unit/client.billing.test.ts keeps current."""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tollgate_client import billing_requests  # noqa: E402

VECTORS = json.loads((Path(__file__).parent / "billing_requests.json").read_text())


class BillingTest(unittest.TestCase):
    def test_renders_the_requests_of_the_gateway(self) -> None:
        for system, requests in VECTORS["requests"].items():
            with self.subTest(system):
                self.assertEqual(billing_requests(system, VECTORS["records"]), requests)

    def test_splits_requests_at_100_events(self) -> None:
        records = [VECTORS["records"][0]] * 250
        self.assertEqual([len(body["events"]) for body in billing_requests("lago", records)], [100, 100, 50])
        self.assertEqual([len(body) for body in billing_requests("openmeter", records)], [100, 100, 50])
        self.assertEqual(billing_requests("stripe", []), [])


if __name__ == "__main__":
    unittest.main()
