"""The command line: arguments in, one call into the library, its result out. No logic lives here."""

from __future__ import annotations

import sys
import warnings

_INTERRUPTED = 130  # the shell's convention, 128 + SIGINT


def main(arguments: list[str] | None = None) -> None:
    """Run `neuralcollapse`; exits 0 when all went well, 1 for a diverged run, 2 with one line for a wrong input."""
    try:
        from neuralcollapse.cli.commands import dispatch
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("neuralcollapse"):
            raise
        sys.exit(_say(f"{error.name} is not installed; the commands need: pip install 'neuralcollapse[lab]'"))
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"neuralcollapse: {message}\n"
    try:
        code = dispatch(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        code = 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        code = _say(_one_line(error))
    finally:
        warnings.formatwarning = before
    sys.exit(code)


def _one_line(error: Exception) -> str:
    from neuralcollapse._checks import InputError

    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "not enough memory for these sizes; take smaller ones"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    if not isinstance(error, InputError):
        raise error  # a defect of ours: the traceback is what helps
    return " ".join(str(error).split())


def _say(message: str) -> int:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    return 2
