"""An interrupt that falls into a destructor, where Python drops it, still ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COMMAND = """
import os, signal, sys, time
from neuralcollapse import cli

class Slow:
    def __init__(self, times):
        self.times = times

    def __del__(self):
        print("in the destructor", flush=True)
        end = time.monotonic() + 0.2
        if self.times:
            os.kill(os.getpid(), SENT)
        while time.monotonic() < end:
            pass

def dispatch(arguments):
    IGNORED
    for times in (1, 0, 0):
        slow = Slow(times)
        del slow
    print("after the destructors", flush=True)
    time.sleep(60)
    return 0

cli.dispatch = dispatch
cli.main([])
"""


@pytest.mark.parametrize(
    ("sent", "before"),
    [
        ("signal.SIGINT", "signal.signal(signal.SIGINT, signal.default_int_handler)"),
        # as in a grid that was begun in the background of a shell
        ("signal.SIGTERM", "signal.signal(signal.SIGINT, signal.SIG_IGN)"),
    ],
)
def test_an_interrupt_lost_in_a_destructor_comes_again(sent: str, before: str) -> None:
    """The second falls into a destructor too, as one that is sent during an import may."""
    if sent == "signal.SIGTERM":
        before += "; signal.signal(signal.SIGTERM, signal.default_int_handler)"
    code = COMMAND.replace("SENT", sent).replace("IGNORED", before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "" and done.stdout.startswith("in the destructor\n")


def test_an_interrupt_lost_at_the_very_end_leaves_no_traceback() -> None:
    code = COMMAND.replace("SENT", "signal.SIGINT")
    code = code.replace(
        "IGNORED", "signal.signal(signal.SIGINT, signal.default_int_handler)\n    Slow(1)\n    return 0"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in the destructor\n", "")


@pytest.mark.parametrize("interrupted", ["raise KeyboardInterrupt", "return 130"])
def test_a_second_interrupt_at_the_end_gives_no_traceback(interrupted: str) -> None:
    code = "import atexit, os, signal\nfrom neuralcollapse import cli\n"
    code += "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    code += f"def dispatch(arguments):\n    {interrupted}\ncli.dispatch = dispatch\ncli.main([])"
    # where the tests run in the background an interrupt is ignored
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=50, check=False, **hears)
    assert done.returncode == -signal.SIGINT and done.stderr == b""


def test_other_errors_of_destructors_are_still_told() -> None:
    code = "from neuralcollapse import cli\nclass Bad:\n    def __del__(self): 1 / 0\n"
    code += "def dispatch(arguments):\n    Bad()\n    return 0\ncli.dispatch = dispatch\ncli.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr


def test_the_hook_is_put_back() -> None:
    from neuralcollapse._interrupts import lost_interrupts_sent_again

    before = sys.unraisablehook
    with lost_interrupts_sent_again():
        assert sys.unraisablehook is not before
    assert sys.unraisablehook is before
