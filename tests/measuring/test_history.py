"""History: the files of our trainer and of others, read back number by number."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.grids import uninterrupted
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measuring.events import first_zero_error, rate_divisions, stays_zero_error
from neuralcollapse.measuring.tidy import COLUMNS
from neuralcollapse.measuring.trackers import tag_of

pd = pytest.importorskip("pandas", reason="pandas is not installed")

RESULTS = Path(__file__).parents[2] / "results"
COMMITTED = sorted(path.parent for path in RESULTS.rglob("history.jsonl"))
OUTSIDE_THE_STUDY = [path for path in COMMITTED if "paper-regime" not in path.parts]
DIGITS = {"width": 0.0625, "examples_per_class": 20, "epochs": 3, "batch_size": 64, "learning_rate": 0.05}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def values(history: nc.History, metric: str) -> dict[float, float]:
    """One metric by epoch."""
    table = history.to_frame()
    chosen = table[table["metric"] == metric]
    return dict(zip(chosen["epoch"].tolist(), chosen["value"].tolist(), strict=True))


def assert_holds(history: nc.History, records: list[dict[str, Any]]) -> None:
    """The table has the numbers of these records and no others, bit for bit."""
    expected = {}
    for record in records:
        for name, value in record.items():
            words = ("epoch", "layer", "notes", "weighting", "snr_space")
            if name.removeprefix("re_estimated.") in words or value is None:
                continue
            for place, each in enumerate(value if isinstance(value, list) else [value], 1):
                key = f"{name}.{place}" if isinstance(value, list) else name
                expected[record["epoch"], record.get("layer") or "", key] = float(each).hex()
    table = history.to_frame()
    keys = zip(table["epoch"], table["layer"], table["metric"], strict=True)
    assert dict(zip(keys, (value.hex() for value in table["value"]), strict=True)) == expected
    assert len(table) == len(expected)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a network with one hidden layer, three epochs on the digits, by our trainer."""
    folder = tmp_path_factory.mktemp("study")
    for seed in (0, 1):
        uninterrupted(folder / f"seed{seed}", seed=seed, **DIGITS)
    (folder / "study.json").write_text(json.dumps({"runs": ["seed0", "seed1", "not-begun"]}))
    return folder


class Counting(nn.Module):
    """A classifier that both trainers take."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.last(self.hidden(features).relu())
        return logits if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}


def data() -> TensorDataset:
    return TensorDataset(torch.randn(48, 6), torch.arange(48) % 3)


@pytest.fixture(scope="module")
def lightning_logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A real Lightning run of four epochs with both loggers and our callback, and what the callback kept."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from neuralcollapse.integrations.lightning import NeuralCollapse

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Counting()

        def forward(self, features: Tensor) -> Tensor:
            return self.network(features)

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            loss = cross_entropy(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=False)
            self.log("nc1", torch.tensor(-1.0))  # a user's own metric of our name
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])]

    folder = tmp_path_factory.mktemp("lightning")
    callback = NeuralCollapse(every=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        torch.manual_seed(0)
        lightning.Trainer(
            max_epochs=4,
            accelerator="cpu",
            log_every_n_steps=1,
            logger=[CSVLogger(folder / "csv"), TensorBoardLogger(folder / "tensorboard")],
            callbacks=[callback, LearningRateMonitor(logging_interval="epoch")],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Module(), DataLoader(data(), batch_size=16))
    return folder, callback.history


@pytest.fixture(scope="module")
def trainer_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A real Transformers run of three epochs with checkpoints, TensorBoard and our callback."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from neuralcollapse.integrations.transformers import NeuralCollapse

    folder = tmp_path_factory.mktemp("transformers") / "classifier"
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=0.1,
        use_cpu=True,
        logging_steps=2,
        report_to=["tensorboard"],
        save_strategy="epoch",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    torch.manual_seed(0)
    examples = [{"features": features, "labels": label} for features, label in data()]
    trainer = transformers.Trainer(Counting(), arguments, train_dataset=examples)
    trainer.remove_callback(transformers.PrinterCallback)
    callback = NeuralCollapse(trainer)
    trainer.add_callback(callback)
    trainer.train()
    return folder, callback.history


def test_a_run_of_our_trainer(study: Path) -> None:
    history = nc.History.read(study / "seed0")
    records = lines_of(study / "seed0" / "history.jsonl")
    assert len(history) == 1 and [record["epoch"] for record in records] == [1, 2, 3]
    assert_holds(history, records)
    table = history.to_frame()
    assert tuple(table.columns) == COLUMNS
    assert table["epoch"].dtype == table["seed"].dtype == "int64" and table["value"].dtype == "float64"
    assert set(zip(table["run"], table["dataset"], table["network"], table["loss"], strict=True)) == {
        ("seed0", "digits", "mlp", "mse")
    }
    (row,) = history.runs.to_dict("records")
    assert (row["epochs"], row["last_epoch"], row["width"], row["seed"]) == (3, 3, 0.0625, 0)
    assert row["rate_divisions"] == (3,)  # after 0.75 and 0.9 of three epochs
    for inside in ("config.json", "history.jsonl", "status.json", "environment.json"):
        pd.testing.assert_frame_equal(nc.History.read(study / "seed0" / inside).to_frame(), table)


def test_a_log_of_its_own_beside_another_programs_is_the_one_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,nc/nc1\n1,2.0\n")
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "nc1": 4.0}\n')
    for path, value in ((tmp_path / "history.jsonl", 4.0), (tmp_path, 2.0)):
        assert nc.History.read(path).to_frame()["value"].tolist() == [value]


def test_a_study_and_several_paths(study: Path, tmp_path: Path) -> None:
    history = nc.History.read(study)
    assert len(history) == 2
    assert history.runs["seed"].tolist() == [0, 1] and history.runs["run"].tolist() == ["seed0", "seed1"]
    both = pd.concat([nc.History.read(study / f"seed{seed}").to_frame() for seed in (0, 1)])
    pd.testing.assert_frame_equal(history.to_frame(), both.reset_index(drop=True))
    several = nc.History.read([str(study / "seed0"), study / "seed1"])
    pd.testing.assert_frame_equal(several.to_frame(), history.to_frame())
    assert len(nc.History.read(study / "study.json")) == 2

    other = tmp_path / "other"
    shutil.copytree(study / "seed0", other / "seed0")
    shutil.copytree(study / "seed1", other / "deep" / "seed1")
    assert nc.History.read([other / "seed0", study / "seed0"]).runs["run"].tolist() == [
        "other/seed0",
        f"{study.name}/seed0",
    ]
    with pytest.raises(nc.InputError, match="is given twice"):
        nc.History.read([study, study / "seed0"])
    with pytest.raises(nc.InputError, match="unclear which of them belong together"):
        nc.History.read(other)
    shutil.rmtree(other / "deep")
    assert len(nc.History.read(other)) == 1  # without study.json the runs directly in the folder
    assert len(nc.History.read(tmp_path)) == 1


def test_runs_that_a_study_does_not_list_are_said(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy")
    (tmp_path / "copy" / "study.json").write_text('{"runs": ["seed1"]}')
    with pytest.warns(UserWarning, match="does not list seed0"):
        assert len(nc.History.read(tmp_path / "copy")) == 1


def test_a_run_before_its_first_measured_epoch(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy")
    (tmp_path / "copy" / "seed1" / "history.jsonl").unlink()
    history = nc.History.read(tmp_path / "copy")
    assert len(history) == 2 and history.runs["last_epoch"].isna().tolist() == [False, True]
    with pytest.raises(nc.InputError, match="nothing has been measured yet"):
        nc.History.read(tmp_path / "copy" / "seed1")


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_every_committed_run(folder: Path) -> None:
    history = nc.History.read(folder)
    assert_holds(history, lines_of(folder / "history.jsonl"))
    config = json.loads((folder / "config.json").read_text())
    (row,) = history.runs.to_dict("records")
    assert (row["dataset"], row["network"], row["loss"]) == (config["dataset_title"], config["model"], config["loss"])
    errors = {record["epoch"]: record["train_error"] for record in lines_of(folder / "history.jsonl")}
    assert row["first_zero_error"] == min(epoch for epoch, error in errors.items() if error == 0)
    ends = [share * config["epochs"] for share in config["milestones"]]
    measured = [record["epoch"] for record in lines_of(folder / "history.jsonl")]
    assert list(row["rate_divisions"]) == [min(epoch for epoch in measured if epoch > end) for end in ends]


def test_how_many_committed_runs_lose_the_zero_again() -> None:
    """By a loop over the lines, and by the table: in 2 of 8 the error rises above 1 % after the first zero."""
    rises, stays = 0, {}
    for folder in OUTSIDE_THE_STUDY:
        errors = [(line["epoch"], line["train_error"]) for line in lines_of(folder / "history.jsonl")]
        seen, worst, last_bad = False, 0.0, 0
        for epoch, error in errors:
            seen = seen or error == 0
            worst = max(worst, error) if seen else worst
            last_bad = epoch if error > 0 else last_bad
        rises += worst > 0.01
        stays[str(folder)] = min((epoch for epoch, _ in errors if epoch > last_bad), default=None)
    assert (len(OUTSIDE_THE_STUDY), rises) == (8, 2)

    history = nc.History.read(OUTSIDE_THE_STUDY)
    runs = history.runs
    assert runs["stays_zero_error"].tolist() == list(stays.values())
    errors = history.to_frame().query("metric == 'train_error'").merge(runs[["run", "first_zero_error"]], on="run")
    after = errors[errors["epoch"] > errors["first_zero_error"]].groupby("run")["value"].max()
    assert (after > 0.01).sum() == rises
    assert after.max() == pytest.approx(0.559, abs=5e-4)  # CIFAR10 with ResNet18


def test_the_lines_of_a_monitor(tmp_path: Path) -> None:
    path = tmp_path / "digits.jsonl"
    model = Counting()
    monitor = nc.Monitor(model, [data()[:]], path=path, metrics="cdnv")
    for epoch in (1, 2, 5):
        monitor(epoch)
        with torch.no_grad():
            model.last.weight.mul_(2)
    history = nc.History.read(path, network="mine", seed=7, width=2)
    assert_holds(history, lines_of(path))
    assert set(history.to_frame()["layer"]) == {"last"}
    (row,) = history.runs.to_dict("records")
    assert (row["run"], row["network"], row["seed"], row["width"]) == ("digits", "mine", 7, 2)
    in_memory = nc.History.from_monitor(monitor, run="digits", network="mine", seed=7)
    pd.testing.assert_frame_equal(in_memory.to_frame(), history.to_frame())
    assert pd.isna(nc.History.from_monitor(monitor).to_frame()["seed"]).all()

    whole = path.read_text()
    path.write_text(whole + whole[:40])  # a killed process
    assert len(values(nc.History.read(path), "nc1")) == 3
    path.write_text(whole + whole.splitlines()[1] + "\n")
    with pytest.warns(UserWarning, match="the epochs fall back, .*; 2 earlier records are left out"):
        assert list(values(nc.History.read(path), "nc1")) == [1, 2]


def test_what_is_not_finite_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "nc.jsonl"
    line = '{"epoch": 0, "nc1": "inf", "nc3": "nan", "snr": ["inf", 2.5], "nc4_mismatch": null, "notes": ["nan"]}'
    path.write_text(line + "\n")
    found = nc.History.read(path).to_frame().set_index("metric")["value"]
    assert found["nc1"] == math.inf and math.isnan(found["nc3"])
    assert found.drop("nc3").to_dict() == {"nc1": math.inf, "snr.1": math.inf, "snr.2": 2.5}


def test_lightnings_csv_logger(lightning_logs: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, kept = lightning_logs
    version = folder / "csv" / "lightning_logs" / "version_0"
    history = nc.History.read(version, dataset="noise")
    with (version / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {int(row["epoch"]) + 1: float(row["nc/nc1"]) for row in rows if row["nc/nc1"]}
    assert list(logged) == [2, 4]
    assert values(history, "nc1") == logged
    assert values(history, "logged/nc1") == dict.fromkeys(range(1, 5), -1.0)
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    assert len(losses) == 12 and list(values(history, "train_loss").values()) == losses[2::3]  # the last of an epoch
    assert values(history, "nc3") == {line["epoch"]: pytest.approx(line["nc3"], rel=1e-6) for line in kept}
    assert history.runs["rate_divisions"].tolist() == [(3,)]
    assert history.runs["run"].tolist() == ["version_0"]
    for path in (folder / "csv", version / "metrics.csv"):
        pd.testing.assert_frame_equal(nc.History.read(path, dataset="noise").to_frame(), history.to_frame())


def test_lightnings_tensorboard_logger(lightning_logs: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = lightning_logs
    rows = nc.History.read(folder / "csv").to_frame().set_index(["epoch", "metric"])["value"]
    history = nc.History.read(folder / "tensorboard")
    events = history.to_frame().set_index(["epoch", "metric"])["value"]
    assert set(events.index) == set(rows.drop("step", level="metric").index) | {(e, "step") for e in range(1, 5)}
    for key, value in rows.drop("step", level="metric").items():
        assert events[key] == pytest.approx(value, rel=1e-6), key  # float32
    assert history.runs["rate_divisions"].tolist() == [(3,)]
    (file,) = folder.rglob("events.out.tfevents.*")
    assert len(nc.History.read(file)) == 1


def test_a_transformers_trainer(trainer_folder: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, kept = trainer_folder
    history = nc.History.read(folder)
    log = json.loads((folder / "checkpoint-9" / "trainer_state.json").read_text())["log_history"]
    for name in ("nc1", "nc2.equinorm_means", "accuracy"):
        logged = {line["epoch"]: line[tag_of(name)] for line in log if tag_of(name) in line}
        assert values(history, name) == logged == {line["epoch"]: line[name] for line in kept}
    assert values(history, "loss") == {line["epoch"]: line["loss"] for line in log if "loss" in line}
    assert history.to_frame()["epoch"].dtype == "float64"  # the loss was logged within epochs, too
    assert history.runs["run"].tolist() == ["classifier"]
    assert history.runs["rate_divisions"].tolist() == [()]  # the rate falls in a straight line
    assert list(values(nc.History.read(folder / "checkpoint-6"), "nc1")) == [1, 2]
    assert list(values(nc.History.read(folder / "checkpoint-6" / "trainer_state.json"), "nc1")) == [1, 2]

    events = nc.History.read(folder / "runs")
    rounded = {epoch: float(torch.tensor(value)) for epoch, value in values(history, "nc1").items()}
    assert values(events, "nc1") == rounded


def test_a_summary_writer_counts_epochs_as_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    with contextlib.closing(SummaryWriter(str(tmp_path))) as writer:
        for epoch, value in ((0, math.inf), (10, 0.5), (20, 0.25)):
            writer.add_scalar("nc/nc1", value, epoch)
            writer.add_scalar("nc/nc3", value, epoch, new_style=True)
    history = nc.History.read(tmp_path)
    assert values(history, "nc1") == values(history, "nc3") == {0: math.inf, 10: 0.5, 20: 0.25}

    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.warns(UserWarning, match="ends within an event"):
        assert values(nc.History.read(tmp_path), "nc3") == {0: math.inf, 10: 0.5}
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(nc.InputError, match=r"is damaged: of \d+ events only the first"):
        nc.History.read(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(nc.InputError, match="has no nc/NAME"):
        nc.History.read(tmp_path)


def test_records_of_several_layers() -> None:
    records = [
        {"epoch": epoch, "layer": layer, "nc1": 1 / epoch, "accuracy": float(layer == "last" and epoch > 1)}
        for epoch in (1, 2, 3)
        for layer in ("first", "last")
    ]
    history = nc.History.from_records(records, run="depth")
    assert_holds(history, records)
    assert history.to_frame()["layer"].tolist()[::2] == ["first", "last"] * 3
    assert history.runs["first_zero_error"].tolist() == [2]  # of the last layer
    assert set(history.select(layer="first").to_frame()["layer"]) == {"first"}
    partly = [{"epoch": 1, "accuracy": 1.0}, {"epoch": 2, "layer": "last", "accuracy": 1.0}]  # of two versions
    assert nc.History.from_records(partly).runs["first_zero_error"].tolist() == [1]
    by_layer = sorted(records, key=lambda record: record["layer"])
    pd.testing.assert_frame_equal(nc.History.from_records(by_layer, run="depth").to_frame(), history.to_frame())


def test_the_tables_of_a_report_and_of_layers() -> None:
    model, batches = Counting(), [data()[:]]
    report = nc.measure(model, batches, metrics="cdnv")
    table = report.to_frame()
    assert tuple(table.columns) == COLUMNS and set(table["layer"]) == {"last"}
    assert table["epoch"].isna().all() and table["seed"].isna().all()
    found = table.set_index("metric")["value"].to_dict()
    assert found == {**report.numbers(), "snr.1": found["snr.1"], "snr.2": found["snr.2"]}
    assert [found["snr.1"], found["snr.2"]] == report.snr.singular_values.tolist()

    layers = nc.measure_layers(model, batches, ["hidden"])
    table = layers.to_frame()
    assert table["layer"].unique().tolist() == ["hidden", "last"]
    for each in layers:
        assert table[table["layer"] == each.name]["value"].tolist() == each.report.to_frame()["value"].tolist()
    over_epochs = nc.History.from_records([{"epoch": 4, **line} for line in layers.to_dict().values()]).to_frame()
    assert over_epochs.drop(columns=["run", "epoch"]).equals(table.drop(columns=["run", "epoch"]))


def test_numbers_of_arrays_and_tensors() -> None:
    np = pytest.importorskip("numpy")
    record = {"epoch": np.int64(3), "a": np.float32(0.5), "b": torch.tensor(0.25), "c": np.array([1.0, 2.0]), "d": True}
    found = nc.History.from_records([record]).to_frame()
    assert dict(zip(found["metric"], found["value"], strict=True)) == {"a": 0.5, "b": 0.25, "c.1": 1.0, "c.2": 2.0}
    assert found["epoch"].tolist() == [3] * 4


@pytest.mark.parametrize(
    ("errors", "first", "stays"),
    [
        ([0.3, 0.1], None, None),
        ([0.3, 0.0], 2, 2),
        ([0.0, 0.2, 0.0, 0.0], 1, 3),
        ([0.0, 0.0], 1, 1),
        ([0.5, 0.0, 1e-9], 2, None),
        ([0.0, math.nan], 1, None),
        ([], None, None),
    ],
)
def test_zero_error_events(errors: list[float], first: int | None, stays: int | None) -> None:
    for key, value in (("train_error", lambda error: error), ("accuracy", lambda error: 1 - error)):
        records = [{"epoch": epoch, key: value(error)} for epoch, error in enumerate(errors, 1)]
        if not any(0 < error < 1e-8 for error in errors) or key == "train_error":
            assert (first_zero_error(records), stays_zero_error(records)) == (first, stays)
        between = [{"epoch": epoch - 0.5, "loss": 1.0} for epoch in range(1, len(errors) + 2)]
        mixed = sorted([*records, *between], key=lambda record: record["epoch"])
        assert first_zero_error(mixed) == first


@pytest.mark.parametrize(
    ("rates", "divided"),
    [
        ([0.1, 0.1, 0.01, 0.01, 0.001], [3, 5]),
        ([0.01, 0.1, 0.1, 0.05], [4]),  # after a warm-up
        ([math.cos(n / 10) for n in range(16)], []),
        ([0.3, 0.2, 0.1, 0.0], []),
        ([0.1, None, 0.01], [3]),
        ([0.1, 0.1], []),
        ([0.1, 0.1 * 0.5], [2]),
        ([], []),
    ],
)
def test_rate_divisions(rates: list[float | None], divided: list[int]) -> None:
    records = [{"epoch": epoch, "learning_rate": rate} for epoch, rate in enumerate(rates, 1)]
    assert rate_divisions(records) == divided


def test_select_and_sum(study: Path) -> None:
    history = nc.History.read(study)
    assert len(history.select(seed=1)) == 1 and len(history.select(seed=[0, 1], loss="MSE", dataset="digits")) == 2
    part = history.select(metric=["nc2", "nc1"])
    names = [name for name in history.metrics if name.startswith("nc2.")]
    assert part.metrics == [*names, "nc1"] and len(names) == 6
    assert history.select(metric="snr").metrics == [f"snr.{rank}" for rank in range(1, 10)]
    assert part.runs["first_zero_error"].equals(history.runs["first_zero_error"])
    assert len(part.select(seed=0) + part.select(seed=1)) == 2
    with pytest.raises(nc.InputError, match="given twice"):
        history + part
    for wanted, message in (
        ({"metric": "nc11"}, "unknown metric 'nc11' .did you mean 'nc1'"),
        ({"loss": "nse"}, "unknown loss 'nse' .did you mean .*expected one of 'mse', 'MSE'"),
        ({"colour": "red"}, "unknown label 'colour'"),
        ({"layer": "x"}, "unknown layer 'x'"),
        ({"seed": 0, "run": "seed1"}, "unknown run 'seed1'"),
    ):
        with pytest.raises(nc.InputError, match=message):
            history.select(**wanted)


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Index, torch.tensor], ids=lambda kind: kind.__name__)
def test_values_to_select_may_be_an_array_or_a_column(kind: Callable[[list[Any]], Any]) -> None:
    lines = [{"epoch": 1, "nc1": 1.0, "nc3": 2.0, "layer": "fc"}]
    runs = [nc.History.from_records(lines, run=f"r{seed}", seed=seed) for seed in range(3)]
    history = runs[0] + runs[1] + runs[2]
    chosen = history.select(seed=kind([0, 2]))
    assert [run.seed for run in chosen.run_records] == [0, 2]
    with pytest.raises(nc.InputError, match=r"unknown seed 7; expected one of 0, 1, 2"):
        history.select(seed=kind([0, 7]))
    if kind is not torch.tensor:
        assert [run.run for run in history.select(run=kind(["r1", "r2"])).run_records] == ["r1", "r2"]
        assert history.select(metric=kind(["nc3"]), layer=kind(["fc"])).metrics == ["nc3"]
    without = history + nc.History.from_records(lines, run="none")
    assert len(without.select(seed=without.runs["seed"])) == 4  # a run without a seed is <NA> there


def test_what_it_shows(study: Path) -> None:
    history = nc.History.read(study)
    text = repr(history)
    final = lines_of(study / "seed0" / "history.jsonl")[-1]["nc1"]
    assert text.startswith("History of 2 runs; measured epochs: 3; metrics: ")
    assert f"{final:.3g}" in text and len(text.splitlines()) == 4
    shown = history._repr_html_()
    assert shown.count("<tr>") == 3 and shown.count("<polyline") == 6 and f">{final:.3g}</td>" in shown
    hostile = nc.History.from_records([{"epoch": 1, "nc1": 1.0}], run="<script>alert(1)</script>")
    assert "<script" not in hostile._repr_html_() and "&lt;script&gt;" in hostile._repr_html_()
    one = nc.History.read(study / "seed0")
    assert "NC1" in str(one.reading()) and str(one.reading().sentences[1]) in one._repr_html_()
    assert history.reading("seed0") == one.reading()
    with pytest.raises(nc.InputError, match=r"the name of one of 2 runs, such as 'seed0'"):
        history.reading()
    with pytest.raises(nc.InputError, match=r"got 'sed0' .did you mean 'seed0'"):
        history.reading("sed0")
    many = nc.History.from_records([{"epoch": 1, "nc1": 0.5}])
    for seed in range(40):
        many += nc.History.from_records([{"epoch": 1, "nc1": 0.5}], seed=seed)
    assert len(repr(many).splitlines()) == 1 + 31 + 1 and "and 11 more runs" in repr(many)
    assert many.runs["run"].is_unique


@pytest.mark.parametrize("length", [1, 20, 59, 61, 200])
def test_the_printed_table_fits_a_terminal_and_has_every_number(study: Path, length: int) -> None:
    names = [f"{place}" * length for place in (1, 2)]
    history = nc.History.read(study / "seed0", run=names[0]) + nc.History.read(study / "seed1", run=names[1])
    lines = repr(history).splitlines()
    assert all(len(line) <= 80 or line.endswith(tuple(names)) for line in lines)
    for place, run in enumerate(history.run_records):
        cells = "  ".join(line for line in lines if line.startswith((names[place], f"{place + 1}  "))).split()
        assert {f"{run.last[name]:.3g}" for name in ("nc1", "nc3", "nc4_mismatch", "test_accuracy")} <= set(cells)
        assert str(run.last["epoch"]) in cells


def test_without_pandas_it_still_reads_and_shows(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    history = nc.History.read(study)
    assert "seed1" in repr(history) and "seed1" in history._repr_html_()
    with pytest.raises(nc.InputError, match=r"a table needs pandas: pip install '?pandas"):
        history.to_frame()
    with pytest.raises(nc.InputError, match="needs pandas"):
        history.runs  # noqa: B018


def test_without_tensorboard_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    with pytest.raises(nc.InputError, match=r"tfevents.*needs TensorBoard: pip install '?tensorboard"):
        nc.History.read(tmp_path)


HOSTILE = {
    "nothing": ("x.jsonl", b"", "is no history"),
    "words": ("x.jsonl", b"hello, world\n", "is no history"),
    "zeros": ("x.jsonl", b"\0" * 1000, "is no history"),
    "broken line": ("x.jsonl", b'{"epoch": 1, "nc1": 1}\n{"epoch": 2, \n', "line 2: expected a JSON object"),
    "a list": ("x.jsonl", b'{"epoch": 1, "nc1": 1}\n[1, 2]\n', "line 2: expected a JSON object"),
    "epoch beyond counting": ("x.jsonl", b'{"epoch": 1e30}\n', "expected an epoch"),
    "no epoch": ("x.jsonl", b'{"nc1": 1}\n', "record 1: expected an epoch, a number of 0 to 1e15, got None"),
    "text as epoch": ("x.jsonl", b'{"epoch": "one"}\n', "expected an epoch"),
    "infinite epoch": ("x.jsonl", b'{"epoch": "inf"}\n', "expected an epoch"),
    "negative epoch": ("x.jsonl", b'{"epoch": -1}\n', "expected an epoch"),
    "true as epoch": ("x.jsonl", b'{"epoch": true}\n', "expected an epoch"),
    "huge epoch": ("x.jsonl", b'{"epoch": 1' + b"0" * 400 + b"}\n", "expected an epoch"),
    "huge number": (
        "x.jsonl",
        b'{"epoch": 1, "nc1": 1' + b"0" * 400 + b"}\n",
        "record 1: expected a number that a float",
    ),
    "deep nesting": ("x.jsonl", b'{"epoch": ' + b"[" * 100_000 + b"\n", "line 1: expected a JSON object"),
    "only half a line": ("x.jsonl", b'{"epoch": 1, "nc1": 1', "nothing has been measured yet"),
    "no log": ("trainer_state.json", b'{"log_history": 3}', "expected a list of objects as log_history, got 3"),
    "log without ours": (
        "trainer_state.json",
        b'{"log_history": [{"loss": 1, "epoch": 1}]}',
        "has no nc/NAME.*got loss, epoch",
    ),
    "half a log": ("trainer_state.json", b'{"log_history": [{"nc/nc1": 1, "ep', "is not a JSON file"),
    "no time": ("trainer_state.json", b'{"log_history": [{"nc/nc1": 1}]}', "row 1: expected an epoch"),
    "other columns": ("metrics.csv", b"a,b\n1,2\n", "is no history: expected lines of JSON, a table"),
    "columns twice": ("metrics.csv", b"epoch,nc1,nc1\n1,2,3\n", "expected columns with names of their own"),
    "more values": ("metrics.csv", b"epoch,nc1\n1,2,3\n", "line 2: expected 2 values, got 3"),
    "a word in a table": ("metrics.csv", b"epoch,nc1\n1,0.1\n2,0.x\n", "line 3: expected numbers, .*'0.x'"),
    "no text": ("metrics.csv", b"epoch,nc1\n\xff\xfe\n", "is no table of comma-separated values"),
    "long field": ("metrics.csv", b"epoch,nc1\n1," + b"1" * 200_000 + b"\n", "is no table of comma-separated values"),
    "infinite epoch in a table": ("metrics.csv", b"epoch,nc1\ninf,1\n", "row 1: expected an epoch"),
    "another program's JSON": ("x.json", b'{\n  "name": "x"\n}\n', "is no history: expected lines of JSON"),
    "no configuration": ("config.json", b"{}", "is no history|holds no run|nothing has been|expected an epoch"),
    "study of nothing": ("study.json", b'{"runs": 3}', r'expected {"runs": \[names'),
    "study outside": ("study.json", b'{"runs": ["../../etc"]}', "expected paths within"),
    "study not begun": ("study.json", b'{"runs": ["a"]}', "none of the 1 runs .* has begun"),
    "damaged study": ("study.json", b"{", "is not a JSON file"),
    "no events": ("events.out.tfevents.1.x", b"hello world" * 100, "has no nc/NAME"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    file, content, message = HOSTILE[name]
    if "tfevents" in file:
        pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / file).write_bytes(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ends within an event")
        with pytest.raises(nc.InputError, match=message) as caught:
            nc.History.read(tmp_path / file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", 3, "expected the names of"),
        ("seed", "a", "expected an integer of 64 bits as seed"),
        ("loss", ["mse"], "names of"),
    ],
)
def test_a_damaged_configuration(field: str, value: Any, message: str, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "seed0", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(nc.InputError, match=message):
        nc.History.read(tmp_path / "run")
    path.write_text("{")
    with pytest.raises(nc.InputError, match=r"config\.json is not a JSON file"):
        nc.History.read(tmp_path / "run")


def test_an_unfinished_row_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,nc1\n1,0.5\n2,0.2")
    with pytest.warns(UserWarning, match="the last line has no end"):
        assert values(nc.History.read(path), "nc1") == {1: 0.5}


@pytest.mark.parametrize("given", [[], 3, None, ["a\0b"], [3]])
def test_what_is_no_path(given: Any) -> None:
    with pytest.raises(nc.InputError, match="expected a path"):
        nc.History.read(given)


def test_paths_that_lead_to_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("missing", "it is not there"), ("pipe", "not a regular file"), (".", "holds no run")):
        with pytest.raises(nc.InputError, match=message):
            nc.History.read(tmp_path / name)


@pytest.mark.parametrize("labels", [{"seed": "a"}, {"seed": True}, {"seed": 2**63}, {"dataset": 3}, {"run": None}])
def test_wrong_labels(labels: dict[str, Any]) -> None:
    with pytest.raises(nc.InputError, match=r"expected (a text|an integer of 64 bits) as"):
        nc.History.from_records([{"epoch": 1}], **labels)


def test_wrong_records() -> None:
    with pytest.raises(nc.InputError, match="at least one record"):
        nc.History.from_records([])
    with pytest.raises(nc.InputError, match="record 1: expected a dictionary, got 3"):
        nc.History.from_records([3])  # type: ignore[list-item]
    with pytest.raises(nc.InputError, match="expected a Monitor or a callback with a history, got int"):
        nc.History.from_monitor(3)
