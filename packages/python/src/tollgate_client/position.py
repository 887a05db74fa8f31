"""The client's position in the user's event log."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class Position:
    """``seq`` of the last delivered event, and the ``epoch`` to which it belongs."""

    after: int
    epoch: str


class PositionStore(Protocol):
    """Keeps a position across processes."""

    def load(self) -> Position | None: ...

    def save(self, position: Position) -> None: ...


class FilePositionStore:
    """Keeps a position in a file, which is replaced atomically."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> Position | None:
        try:
            stored = json.loads(self._path.read_text())
            after, epoch = stored["after"], stored["epoch"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Position(after, epoch) if isinstance(after, int) and after >= 0 and isinstance(epoch, str) else None

    def save(self, position: Position) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump({"after": position.after, "epoch": position.epoch}, file)
        os.replace(temporary, self._path)


Arrival = Literal["deliver", "repeated", "gap"]


class StreamPosition:
    """``seq`` counts from 1 without gaps, so each event that is not the next one is a repetition or shows a gap."""

    def __init__(self, store: PositionStore | None) -> None:
        self._store = store
        self.current = store.load() if store else None

    def arrive(self, seq: int) -> Arrival:
        position = self.current
        if position is None or seq > position.after + 1:
            return "gap"
        if seq <= position.after:
            return "repeated"
        self.current = Position(seq, position.epoch)
        return "deliver"

    def save(self) -> None:
        if self._store and self.current:
            self._store.save(self.current)
