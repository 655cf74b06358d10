"""The command line before anything runs: help, versions, misspelled commands, options and words."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import tyro

import neuralcollapse as nc
from neuralcollapse.cli import COMMANDS, command_class, main, parse
from neuralcollapse.cli.completion import completion_script
from neuralcollapse.cli.help import SECTIONS, field_texts, options_of
from neuralcollapse.cli.option_types import MARKERS, RULES
from neuralcollapse.measuring.bootstrap import RESAMPLES
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.recipes import paper_recipe


def call(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


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
    assert "None" not in printed and "options options" not in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_the_options_that_are_read_each_in_one_section(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(options_of(command_class(name)))
    with pytest.raises(SystemExit):
        tyro.cli(command_class(name), args=["--help"], registry=RULES, config=MARKERS)
    read = re.findall(r"^.{0,2}(--[a-z][a-z-]*)", capsys.readouterr().out, re.MULTILINE)
    listed = [option.name for option in found if option.name.startswith("--")]
    assert sorted(listed) == sorted(read)
    assert all(option.section in SECTIONS and len(option.text) > 3 for option in found)


def test_the_sections_of_run_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "--help"]) == 0
    titles = re.findall(r"^(\S.*):$", capsys.readouterr().out, re.MULTILINE)
    assert titles == ["Data", "Network", "Optimisation", "Measuring", "Where it runs", "Settings from a file", "Output"]


@pytest.mark.parametrize(("dataset", "pattern"), [("mnist", r"default (\S+)[;)]"), ("digits", r"; (\S+) for digits")])
def test_the_defaults_in_the_help_are_those_of_the_recipes(dataset: str, pattern: str) -> None:
    """Numbers in the help, such as `default 350; 200 for digits`, against the recipe of a data set."""
    recipe = paper_recipe(dataset, "resnet18", "mse").given()
    texts = field_texts(TrainingConfig)
    told = {name: found[1] for name in recipe if (found := re.search(pattern, texts[name]))}
    expected = {"mnist": {"epochs", "batch_size", "momentum"}, "digits": {"epochs", "width"}}[dataset]
    assert expected <= told.keys()
    for name in told:
        assert float(told[name]) == recipe[name], name
    milestones = {"mnist": "1/3 2/3", "digits": "0.75 0.9"}[dataset]
    assert milestones in texts["milestones"]
    assert [float(Fraction(share)) for share in milestones.split()] == pytest.approx(recipe["milestones"])
    digits = paper_recipe("digits", "resnet18", "mse")
    assert f"{digits.learning_rate:g} for digits with mse" in texts["learning_rate"]
    assert f"{digits.weight_decay:g} for digits with mse" in texts["weight_decay"]


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
        (["run", "--epoch", "3"], "unknown option '--epoch' (did you mean '--epochs'?); see neuralcollapse run --help"),
        (["measure", "--wieght=x.npy"], "unknown option '--wieght' (did you mean '--weight' or '--weighting'?); see"),
        (["run", "--foo"], "unknown option '--foo'; see neuralcollapse run --help"),
        (["run", "--", "3"], "unknown option '--'; see neuralcollapse run --help"),
        (
            ["run", "--loss", "msee"],
            "--loss: unknown value 'msee' (did you mean 'mse'?); expected one of mse, mse-torch, ce",
        ),
        (["run", "--optimizer", "adamm"], "--optimizer: unknown value 'adamm' (did you mean 'adam' or 'adamw'?)"),
        (["run", "--head", "efg"], "--head: unknown value 'efg' (did you mean 'etf'?)"),
        (["dynamics", "--flow", "Projected"], "--flow: unknown value 'Projected' (did you mean 'projected'?)"),
        (["measure", "--weighting", "None"], "--weighting: unknown value 'None'; expected one of example, class"),
        (["run", "--epochs", "1.5"], "--epochs: expected a whole number, got '1.5'; see neuralcollapse run --help"),
        (["run", "--epochs="], "--epochs: expected a whole number, got ''; see neuralcollapse run --help"),
        (["run", "--batch_size", "x"], "--batch-size: expected a whole number, got 'x'; see neuralcollapse run --help"),
        (["run", "--milestones", "a"], "--milestones: expected a number, got 'a'; see neuralcollapse run --help"),
        (["grid", "--seeds", "0", "x"], "--seeds: expected a whole number, got 'x'; see neuralcollapse grid --help"),
        (["compare", "a", "b", "--level", "x"], "--level: expected a number, got 'x'; see neuralcollapse compare"),
        (["dynamics", "--time", "long"], "--time: expected a number, got 'long'; see neuralcollapse dynamics --help"),
        (["figures", "x", "--format", "gif"], "--format: unknown value 'gif'; expected one of pdf, svg, png; see"),
        (["sweep", "--values", "1", "a"], "--values: expected a number, got 'a'; see neuralcollapse sweep --help"),
        (["run", "--epochs"], "expected a value after --epochs, got none; see neuralcollapse run --help"),
        (["run", "--epochs", "--loss", "ce"], "expected a value after --epochs, got '--loss'; see neuralcollapse run"),
        (["figures", "--format"], "expected a value after --format, got none; see neuralcollapse figures --help"),
        (["grid", "--seeds", "--jobs", "2"], "expected a value after --seeds, got '--jobs'; see neuralcollapse grid"),
        (["measure", "--jobs", "-n"], "expected a value after --jobs, got '-n'; see neuralcollapse measure --help"),
        (
            ["measure", "a.npz", "b.npz"],
            "measure expected one path, got 'b.npz' too; see neuralcollapse measure",
        ),
        (["compare", "a", "b", "c"], "compare expected two paths, got 'c' too"),
        (["run", "foo"], "run expected options alone, got 'foo' too; see neuralcollapse run --help"),
        (["figures"], "expected a run directory or the folder of a study, such as `figures runs/grid`, got none"),
        (["figures", "--animatd", "runs/grid"], "unknown option '--animatd' (did you mean '--animate'?)"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith(f"neuralcollapse: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_where_the_shell_looks(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert call(["--install-completion"]) == 0
    path, advice = capsys.readouterr().out.splitlines()
    assert Path(path).is_relative_to(tmp_path) and "new shell" in advice
    script = Path(path).read_text()
    assert all(word in script for word in (*COMMANDS, "--epochs", "--batch-norm-statistics", "label-smoothing"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("ru", "run"), ("run --ep", "--epochs"), ("run --loss m", "mse mse-torch"), ("figures --o", "--out")],
)
def test_bash_completes(typed: str, completed: str, tmp_path: Path) -> None:
    script = tmp_path / "neuralcollapse"
    script.write_text(completion_script({name: command_class(name) for name in COMMANDS}, "bash"))
    words = f"neuralcollapse {typed}".split()
    line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
    done = subprocess.run(
        ["bash", "-c", line + '_tyro_neuralcollapse; echo "${COMPREPLY[*]}"'],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == completed.split()


def test_a_shell_without_completion_is_answered_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SHELL", raising=False)
    assert call(["--install-completion"]) == 2
    assert "no completion for an empty SHELL; expected" in capsys.readouterr().err
    assert call(["--install-completion", "bsh"]) == 2
    assert "no completion for 'bsh' (did you mean 'bash'" in capsys.readouterr().err


def test_a_switch_that_is_not_given_is_left_open() -> None:
    assert parse("run", []).training.notebook_weight_decay is None
    assert parse("run", ["--notebook-weight-decay"]).training.notebook_weight_decay is True
    assert parse("grid", ["--dry-run"]).running.dry_run is True


def test_the_resamples_of_the_command_are_those_of_the_library() -> None:
    assert parse("compare", ["a.npz", "b.npz"]).comparing.resamples == RESAMPLES


def test_options_are_read_by_their_types() -> None:
    dynamics = parse("dynamics", ["--classes", "4", "--time", "5e1", "--flow", "multiplicative"])
    assert (dynamics.classes, dynamics.time, dynamics.flow, dynamics.run) == (4, 50.0, "multiplicative", None)
    sweep = parse("sweep", ["--values", "1e-3", "1", "--epochs", "3", "--milestones", "0.5"])
    assert sweep.values == (1e-3, 1.0) and parse("sweep", []).values is None
    grid = parse("grid", ["--losses", "ce", "mse", "--seeds", "0", "2", "--recipe", "a.json"])
    assert (grid.losses, grid.seeds, grid.recipe) == (("ce", "mse"), (0, 2), (Path("a.json"),))
