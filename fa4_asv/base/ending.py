"""How a command ends on Ctrl-C, SIGTERM and SIGHUP: what it started ends with it, one line, exit code 128 + the signal."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE = 1.0  # seconds: `timeout` sends its signal twice; the second must not disturb what the first ends
# Python runs the handler of a signal when its main thread next runs Python. Where the signal came just before that thread began to
# wait, or to another thread, that may be never: so it is woken again and again. And the exception of a handler can come to
# nothing (in a finalizer, in a lock that it leaves locked): after _PATIENCE seconds it is raised again until the process ends.
_TICK, _PATIENCE = 1.0, 20.0


class Ended(KeyboardInterrupt):
    """One of SIGNALS came; `number` says which. Whoever handles Ctrl-C handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def code_of(interrupt: KeyboardInterrupt) -> int:
    """What the process is to exit with: 130 on Ctrl-C, 143 on SIGTERM."""
    return 128 + (interrupt.number if isinstance(interrupt, Ended) else int(signal.SIGINT))


def words_of(interrupt: KeyboardInterrupt) -> str:
    """One line for a command that has no more to say."""
    number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def raise_ended() -> None:
    """From now on each of SIGNALS raises Ended. One that is ignored (`nohup`, a shell's `&`) stays ignored."""

    def ended(number: int) -> None:
        raise Ended(number)

    _listen(ended)


def exit_on_signal() -> None:
    """The same for asv, which turns Ctrl-C into a traceback or exit code 1: say a line, and exit by SystemExit."""

    def leave(number: int) -> None:
        interrupt = Ended(number)
        os.write(2, f"\nfa4-asv: {words_of(interrupt)}\n".encode())
        raise SystemExit(code_of(interrupt))

    _listen(leave)


def _listen(end: Callable[[int], None]) -> None:
    before, came = -_AT_ONCE, 0

    def handle(signal_number: int, _frame: FrameType | None) -> None:
        nonlocal before, came
        now = time.monotonic()
        if now - before >= _AT_ONCE:
            before, came = now, signal_number
            end(signal_number)

    def tick(_number: int, _frame: FrameType | None) -> None:
        nonlocal before
        if came and time.monotonic() - before >= _PATIENCE:
            before = time.monotonic()
            end(came)

    for signal_number in SIGNALS:
        if signal.getsignal(signal_number) is not signal.SIG_IGN:
            signal.signal(signal_number, handle)
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    # Nobody handles it any more once the interpreter ends.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
