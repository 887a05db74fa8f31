"""Usage records as requests to billing systems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

BillingSystem = Literal["stripe", "openmeter", "lago"]

#: Name of the meter at Stripe and OpenMeter, and of the billable metric at Lago.
METER = "tollgate_units"
#: Maximum number of events per request of Stripe and Lago.
EVENTS_PER_REQUEST = 100


def billing_requests(system: BillingSystem, records: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Renders records as the JSON bodies of requests, as ``GET /v1/usage/export`` renders a window.

    Stripe: ``POST /v2/billing/meter_event_stream``; OpenMeter: ``POST /api/v1/events``; Lago: ``POST
    /api/v1/events/batch``. Each body has at most 100 events. The receivers drop events that they have received before,
    so a request can be repeated.
    """
    render = {"stripe": _stripe, "openmeter": _openmeter, "lago": _lago}[system]
    # OpenMeter counts free calls too; the others only add up units.
    events = [render(record) for record in records if record["units"] != 0 or system == "openmeter"]
    parts = [events[at : at + EVENTS_PER_REQUEST] for at in range(0, len(events), EVENTS_PER_REQUEST)]
    return parts if system == "openmeter" else [{"events": part} for part in parts]


def _stripe(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event_name": METER,
        "identifier": record["id"],
        "timestamp": record["completed_at"],
        "payload": {"stripe_customer_id": record["user_id"], "value": str(record["units"])},
    }


def _openmeter(record: Mapping[str, Any]) -> dict[str, Any]:
    values = {"units": record["units"], **record.get("units_by_kind", {})}
    return {
        "specversion": "1.0",
        "id": record["id"],
        "source": "/tollgate/ledger",
        "type": METER,
        "subject": record["user_id"],
        "time": record["completed_at"],
        "data": {**values, **{name: record[name] for name in ("duration_ms", "tool", "plan", "status")}},
    }


def _lago(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "transaction_id": record["id"],
        "external_subscription_id": record["user_id"],
        "code": METER,
        "timestamp": int(datetime.fromisoformat(record["completed_at"]).timestamp()),
        "properties": {
            "units": record["units"],
            **record.get("units_by_kind", {}),
            "tool": record["tool"],
            "plan": record["plan"],
        },
    }
