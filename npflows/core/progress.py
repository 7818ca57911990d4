"""Progress of a long run: a tqdm bar where tqdm is installed, else plain lines; nothing unless wanted."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np


class Progress:
    """Shows rounds, epochs for instance, as they end, on standard error.

    Parameters
    ----------
    show : bool or "auto"
        auto: only on a terminal.
    after : float
        Seconds that pass before anything is shown, so that short work shows nothing.
    """

    seconds_between_lines = 5.0

    def __init__(self, show: bool | str, after: float = 0.0) -> None:
        if not isinstance(show, (str, bool, np.bool_, int, np.integer)) or show not in (True, False, "auto"):
            raise ValueError(f'progress must be True, False or "auto", got {show!r}')
        self._show = sys.stderr.isatty() if show == "auto" else bool(show)
        self._total, self._done, self._unit = 0, 0, ""
        self._bar: Any = None
        self._last_line = time.monotonic() + after - self.seconds_between_lines if after else 0.0
        self._after = after
        self._text = ""

    def begin(self, total: int, unit: str, done: int = 0) -> None:
        """Start showing rounds of this name, so many at most; `done` are those of an earlier run that this continues."""
        self._total, self._unit, self._done = total, unit, done
        if self._show:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, initial=done, unit=unit, leave=True, delay=self._after)

    def update(self, text: str, total: int, done: int = 1) -> None:
        """One more is done, or several, of so many as far as is known now."""
        self._total = total
        self._done += done
        self._text = text
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done)
        elif self._show and time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        text = f": {self._text}" if self._text else ""
        print(f"{self._unit} {self._done}/{self._total}{text}", file=sys.stderr, flush=True)
        self._text = ""

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and self._text:
            self._line()
