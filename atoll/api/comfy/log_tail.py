"""The last lines of the server's log, for the frontend's log panel."""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import Any

LINES = 300


class LogTail(logging.Handler):
    """Remembers what Atoll logs from INFO up; nothing of it leaves this process but by /internal/logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._entries: deque[dict[str, str]] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created, UTC).isoformat()
        self._entries.append({"t": time, "m": f"{self.format(record)}\n"})

    def entries(self) -> list[dict[str, Any]]:
        """`{t: time, m: line}`, the oldest first."""
        return list(self._entries)

    def attach(self) -> None:
        logging.getLogger("atoll").addHandler(self)

    def detach(self) -> None:
        logging.getLogger("atoll").removeHandler(self)
