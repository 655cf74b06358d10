"""The command line: each module here holds one command, its options and what it prints; the work is the library's."""

from __future__ import annotations

import atexit
import importlib
import itertools
import re
import signal
import sys
import warnings
from typing import Any

from neuralcollapse._errors import INTERRUPTED, InputError, install, suggest
from neuralcollapse._interrupts import lost_interrupts_sent_again

COMMANDS = {
    "run": ("RunCommand", "train a network, measure its collapse, draw the figures"),
    "grid": ("GridCommand", "train data sets × networks × losses × seeds: the paper's study"),
    "sweep": ("SweepCommand", "train at many values of one setting, and keep the best as a recipe"),
    "measure": ("MeasureCommand", "measure features and a classifier saved in files"),
    "compare": ("CompareCommand", "which numbers of two networks or runs differ, with intervals"),
    "dynamics": ("DynamicsCommand", "the central path in closed form, integrated, or against a run"),
    "figures": ("FiguresCommand", "draw the figures of a run or of a study again"),
    "report": ("ReportCommand", "one HTML file to explore a run, a study or a measurement"),
    "data": ("DataCommand", "list the data sets found on this machine"),
}
"""The class of each command, in the module of the command's name, and what the command does."""


@lost_interrupts_sent_again()
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
        code = _fail(f"{error.name} is not installed; all that the commands need: {install(extra='lab')}")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        sys.stderr.close()
        code = 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        code = _fail(_one_line(error))
    finally:
        warnings.formatwarning = shown
    if code == INTERRUPTED:  # at the end of this process another Ctrl-C gives no traceback of the libraries
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def dispatch(arguments: list[str]) -> int:
    """Parse the arguments and run the command; returns the exit code.

    Raises:
        InputError: there is no such command.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments[0]
    if name in ("-V", "--version"):
        from neuralcollapse import __version__

        print(f"neuralcollapse {__version__}")
        return 0
    if name == "--install-completion":
        from neuralcollapse.cli.completion import install_completion

        print(install_completion({each: command_class(each) for each in COMMANDS}, *arguments[1:2]))
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}{suggest(name, COMMANDS)}; expected one of {', '.join(COMMANDS)}")
    command = parse(name, arguments[1:])

    from rich.console import Console

    return command(Console())  # type: ignore[no-any-return]


def command_class(name: str) -> type:
    """The dataclass of a command; only its own module is imported."""
    found: type = getattr(importlib.import_module(f"neuralcollapse.cli.{name}"), COMMANDS[name][0])
    return found


def parse(name: str, arguments: list[str]) -> Any:
    """The command of that name with its options.

    Raises:
        InputError: an unknown option, a value that is missing or wrong, or more paths than the command takes.
        SystemExit: --help, with code 0.
    """
    command = command_class(name)
    if "-h" in arguments or "--help" in arguments:
        from neuralcollapse.cli.help import help_text

        print(help_text(name, command))
        sys.exit(0)

    import tyro

    from neuralcollapse.cli.help import options_of
    from neuralcollapse.cli.option_types import MARKERS, RULES, WrongValue

    advice = f"see neuralcollapse {name} --help"
    known = {option.name: option for option in options_of(command)}
    for given, after in itertools.zip_longest(arguments, arguments[1:]):
        option, equals, _ = given.partition("=")
        if option.startswith("--") and (option := option.replace("_", "-")) not in known:
            raise InputError(f"unknown option {option!r}{suggest(option, known)}; {advice}")
        takes_value = option.startswith("--") and known[option].value
        if takes_value and not equals and (after is None or re.match("--|-[a-z]", after)):
            got = "none" if after is None else repr(after)
            raise InputError(f"expected a value after {option}, got {got}; {advice}")
    found: Any
    try:
        found, unknown = tyro.cli(
            command,
            args=arguments,
            prog=f"neuralcollapse {name}",
            registry=RULES,
            config=MARKERS,
            return_unknown_args=True,
        )
    except WrongValue as error:
        raise InputError(f"{error}; {advice}") from None
    if unknown:
        expected = ("options alone", "one path", "two paths")[sum(not each.startswith("--") for each in known)]
        raise InputError(f"{name} expected {expected}, got {unknown[0]!r} too; {advice}")
    return found


def _help() -> str:
    commands = "\n".join(f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items())
    return f"""usage: neuralcollapse COMMAND [options]

Measure, reproduce and see Neural Collapse.

{commands}

To begin, and what may follow:

  neuralcollapse run                      handwritten digits, a minute or two
  neuralcollapse run --loss ce --epochs 100
  neuralcollapse measure layer.npz        features, labels, weight and bias
  neuralcollapse grid --dry-run           the paper's study: what it takes
  neuralcollapse report runs/grid         one page to explore a run or study

  neuralcollapse COMMAND --help           the options of a command
  neuralcollapse --version
  neuralcollapse --install-completion     Tab completes commands and options"""


def _one_line(error: Exception) -> str:
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
