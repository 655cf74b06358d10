"""The command line: each module here holds one command, its options and what it prints; the work is the library's."""

from __future__ import annotations

import sys
import warnings

_INTERRUPTED = 130  # the shell's convention, 128 + SIGINT


def main(arguments: list[str] | None = None) -> None:
    """Run `neuralcollapse`.

    Exits with 0 when all went well, 1 for a run that diverged or is not finished, 2 with one line on the error stream
    for wrong input, and 130 when interrupted.

    Args:
        arguments: those after the program's name; None for those of this process.
    """
    shown = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"neuralcollapse: {message}\n"
    try:
        code = dispatch(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("neuralcollapse"):
            raise
        code = _fail(f"{error.name} is not installed; the commands need: pip install 'neuralcollapse[lab]'")
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        sys.stderr.close()
        code = 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        code = _fail(_one_line(error))
    finally:
        warnings.formatwarning = shown
    sys.exit(code)


def dispatch(arguments: list[str]) -> int:
    """Parse the arguments and run the command; returns the exit code."""
    from typing import Annotated

    import tyro
    from rich.console import Console
    from tyro.conf import subcommand

    from neuralcollapse.cli.data import DataCommand
    from neuralcollapse.cli.dynamics import DynamicsCommand
    from neuralcollapse.cli.figures import FiguresCommand
    from neuralcollapse.cli.grid import GridCommand
    from neuralcollapse.cli.measure import MeasureCommand
    from neuralcollapse.cli.run import RunCommand
    from neuralcollapse.cli.sweep import SweepCommand

    command = tyro.cli(
        Annotated[RunCommand, subcommand("run")]  # type: ignore[arg-type]
        | Annotated[GridCommand, subcommand("grid")]
        | Annotated[SweepCommand, subcommand("sweep")]
        | Annotated[MeasureCommand, subcommand("measure")]
        | Annotated[FiguresCommand, subcommand("figures")]
        | Annotated[DynamicsCommand, subcommand("dynamics")]
        | Annotated[DataCommand, subcommand("data")],
        prog="neuralcollapse",
        description="Measure, reproduce and see Neural Collapse.",
        args=arguments,
    )
    return command(Console())  # type: ignore[operator,no-any-return]


def _one_line(error: Exception) -> str:
    from neuralcollapse._checks import InputError

    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "not enough memory for these sizes; take smaller ones"
    raise error  # a defect of this program, for which the traceback is needed


def _fail(message: str) -> int:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    return 2
