"""The command line before anything runs: help, versions, misspelled commands, options and words."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import neuralcollapse as nc
from neuralcollapse.cli import COMMANDS, main, parse


def call(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


def said(text: str) -> str:
    """A message without the box around it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def test_help_lists_every_command_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 80
    assert call([]) == 2
    assert capsys.readouterr().err == printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == f"neuralcollapse {nc.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_lists_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: neuralcollapse {name}") and "--" in printed
    assert "{None}" not in printed  # an option that may be left open is shown as the value it takes


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_pytorch(name: str) -> None:
    code = (
        "import contextlib, io, sys\n"
        "from neuralcollapse.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main([{name!r}, '--help'])\n"
        "print({'torch', 'numpy', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mesure"], "unknown command 'mesure' (did you mean 'measure'?); expected one of run, grid"),
        (["quicksort"], "unknown command 'quicksort'; expected one of run, grid"),
        (["--out", "x"], "unknown command '--out'"),
    ],
)
def test_an_unknown_command_is_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"neuralcollapse: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--epoch", "3"], "Perhaps you meant: --epochs INT"),
        (["measure", "--wieght", "x.npy"], "Perhaps you meant: --weight PATH"),
        (["run", "--loss", "msee"], "unknown value 'msee' (did you mean 'mse'?); expected one of mse, mse-torch, ce"),
        (["run", "--optimizer", "adamm"], "(did you mean 'adam' or 'adamw'?)"),
        (["run", "--head", "efg"], "unknown value 'efg' (did you mean 'etf'?)"),
        (["dynamics", "--flow", "Projected"], "unknown value 'Projected' (did you mean 'projected'?)"),
        (["measure", "--weighting", "None"], "unknown value 'None'; expected one of example, class"),
        (["run", "--epochs", "1.5"], "Error parsing --epochs: expected a whole number, got '1.5'"),
        (["dynamics", "--time", "long"], "Error parsing --time: expected a number, got 'long'"),
        (["figures"], "expected a run directory or the folder of a study, such as `figures runs/grid`, got none"),
        (["figures", "--animatd", "runs/grid"], "Perhaps you meant: --animate"),
    ],
)
def test_a_wrong_option_is_answered_with_what_was_expected(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    assert message in said(capsys.readouterr().err)


def test_options_are_read_by_their_types() -> None:
    dynamics = parse("dynamics", ["--classes", "4", "--time", "5e1", "--flow", "multiplicative"])
    assert (dynamics.classes, dynamics.time, dynamics.flow, dynamics.run) == (4, 50.0, "multiplicative", None)
    sweep = parse("sweep", ["--values", "1e-3", "1", "--epochs", "3", "--milestones", "0.5"])
    assert sweep.values == (1e-3, 1.0) and parse("sweep", []).values is None
