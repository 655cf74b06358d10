"""An interrupt from the keyboard that Python drops is sent again.

Python ignores an exception that is raised in a destructor, a `KeyboardInterrupt` too, and some libraries run
destructors while they are imported: Ctrl-C at such a moment would do nothing but print "Exception ignored in". That
printing goes through `sys.unraisablehook`, which is where it is noticed here.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

SENT_AGAIN_AFTER = 0.05
"""Seconds until the destructor, in which the interrupt would be lost once more, should have ended."""


@contextlib.contextmanager
def lost_interrupts_sent_again() -> Iterator[None]:
    """Within the block, an interrupt that was lost in a destructor comes again shortly after, until it is not lost.

    It is for the main function of a process of our own: the hook belongs to the whole process.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        timers.append(threading.Timer(SENT_AGAIN_AFTER, _interrupt))
        timers[-1].daemon = True
        with contextlib.suppress(RuntimeError):  # no thread can be started while the interpreter shuts down
            timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:  # an interrupt at the very end has nothing left to stop
            timer.cancel()


def _interrupt() -> None:
    """Send the main thread the signal that interrupts this process: SIGTERM where SIGINT is ignored."""
    handled = [each for each in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(each))]
    for each in handled[:1]:
        if sys.platform == "win32":
            _thread.interrupt_main(each)
        else:  # a signal of the system's ends a wait, too
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, each)
