"""Stop between two steps: a signal asks, the step in hand is finished and kept, and the run ends resumable."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from workbench import collective, place
from workbench.errors import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_SAME_SECONDS = 0.5
"""To one of several processes, one Ctrl-C may come twice: from the terminal, and passed on by torchrun."""


class Stopper(TrainerCallback):  # type: ignore[misc]
    """Listens for Ctrl-C, SIGTERM and SIGUSR1 while training walks. A second Ctrl-C stops at once, without a
    checkpoint; a second one of the others says nothing new (schedulers send it to every process, and so does our own
    launcher)."""

    def __init__(self) -> None:
        self.asked: int | None = None
        """The signal that asked this process, if one did."""
        self.agreed: int | None = None
        """The one that all processes of the run know of since the last step."""
        self._asked_at = 0.0
        self._same_seconds = _SAME_SECONDS if place.here().world > 1 else 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again = self.asked == number == signal.SIGINT
        if again and time.monotonic() - self._asked_at > self._same_seconds:
            raise KeyboardInterrupt
        if not again:
            self.asked, self._asked_at = number, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Ask the trainer for a checkpoint and an end: in every process after the same step, whichever was asked."""
        self.agreed = max((asked for asked in collective.gather(self.asked) if asked is not None), default=None)
        if self.agreed is not None and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def raise_if_asked(self, step: int, steps: int) -> None:
        """Raise after the trainer returned early, or after what it came to is saved.

        Raises:
            KeyboardInterrupt: Ctrl-C asked.
            StoppedError: a scheduler asked, that takes the machine back or is about to.
        """
        asked = self.agreed if place.here().world > 1 else self.asked
        if asked is None:
            return
        if asked == signal.SIGINT:
            raise KeyboardInterrupt
        name = signal.Signals(asked).name
        raise StoppedError(f"stopped by {name} at step {step} of {steps}, kept; the same command continues it")
