"""What a signal ends, ends, even where the exception that it raises comes to nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from fa4_asv.base.ending import Ended, code_of, words_of

# The first exception is swallowed, as a finalizer does; then the process waits for what never comes.
DEAF = """
import threading
from fa4_asv.base import ending
ending._TICK, ending._PATIENCE = 0.1, 0.1
ending.{listen}()
try:
    print("ready", flush=True)
    threading.Event().wait()
except BaseException:
    print("swallowed", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("listen", ["raise_ended", "exit_on_signal"])
def test_an_exception_that_came_to_nothing_is_raised_again(listen, number):
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF.format(listen=listen)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, message = process.communicate(timeout=60)
    assert output == "swallowed\n"
    if listen == "raise_ended":
        assert f"Ended: {number.name}" in message, "nobody handles it in this program"
    else:
        assert process.returncode == 128 + number, message


# The signal comes to a thread that is not the main one, which waits: nothing wakes it.
ELSEWHERE = """
import signal, threading
from fa4_asv.base import ending
ending._TICK = 0.1
ending.exit_on_signal()
def send():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Timer(0.2, send).start()
threading.Event().wait()
"""


def test_a_signal_that_wakes_nobody_is_heard():
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr.strip() == "fa4-asv: ended by SIGTERM"


@pytest.mark.parametrize(
    ("interrupt", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Ended(signal.SIGINT), 130, "interrupted"),
        (Ended(signal.SIGTERM), 143, "ended by SIGTERM"),
        (Ended(signal.SIGHUP), 129, "ended by SIGHUP"),
    ],
)
def test_exit_code_and_line_of_an_interrupt(interrupt, code, words):
    assert code_of(interrupt) == code
    assert words_of(interrupt) == words
