"""Client of the Tollgate gateway for AI agents."""

from .billing import BillingSystem, billing_requests
from .client import Identity, Tollgate
from .errors import ConnectionStoppedError, EventsLostError, RunFailedError, TollgateError
from .ledger import LedgerFeed, LedgerPage
from .position import FilePositionStore, Position, PositionStore
from .run import Run, RunResult
from .sync import SyncRun, SyncTollgate
from .tokens import Tokens

__all__ = [
    "BillingSystem",
    "ConnectionStoppedError",
    "EventsLostError",
    "FilePositionStore",
    "Identity",
    "LedgerFeed",
    "LedgerPage",
    "Position",
    "PositionStore",
    "Run",
    "RunFailedError",
    "RunResult",
    "SyncRun",
    "SyncTollgate",
    "Tokens",
    "Tollgate",
    "TollgateError",
    "billing_requests",
]
