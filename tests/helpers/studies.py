"""A study made of small synthetic run directories, whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralcollapse._files import write_json
from neuralcollapse.training import recipes
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run, Status

NAMES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10 (JPEG)",
    "svhn": "SVHN",
    "stl10": "STL10",
    "digits": "digits",
}
KEYS = (
    *("mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp", "nc1", "nc3"),
    *(f"nc2.{name}_{of}" for name in ("equinorm", "equiangularity", "maximal_angle") for of in ("means", "classifier")),
)


def config(dataset: str = "mnist", model: str = "vgg11", loss: str = "mse", **changes: Any) -> dict[str, Any]:
    """A configuration as `neuralcollapse run` writes it, of the paper's own size and recipe."""
    paper = recipes.paper_recipe(dataset if dataset in recipes.DATASETS else "mnist", model, loss)
    fields: dict[str, Any] = {
        "dataset": dataset,
        "dataset_title": NAMES.get(dataset, dataset),
        "data_dir": None,
        "examples_per_class": None,
        "num_examples": 50_000,
        "num_test_examples": 10_000,
        "num_classes": 10,
        "class_names": [str(label) for label in range(10)],
        "model": model,
        "loss": loss,
        "loss_title": "MSE" if loss == "mse" else "cross-entropy",
        "width": 1.0,
        "epochs": 350,
        "seed": 0,
        "batch_size": 128,
        "learning_rate": paper.learning_rate,
        "momentum": 0.9,
        "weight_decay": paper.weight_decay,
        "milestones": [1 / 3, 2 / 3],
        "measured_weight_decay": 5e-4,
        "precision": "32",
        "device": "cpu",
        "devices": 1,
        **changes,
    }
    known = RunConfig.__dataclass_fields__.keys()
    assert fields.keys() <= known, fields.keys() - known
    return fields


def run_config(**changes: Any) -> RunConfig:
    """A configuration for tests to which the numbers in it do not matter."""
    return RunConfig.from_json(config(**changes), "a test")


def history(
    accuracies: dict[int, float], zero: int | None, factor: float = 1.0, robustness: dict[int, float] | None = None
) -> list[dict[str, Any]]:
    """A line for each epoch of `accuracies`; the training error is zero from epoch `zero` on."""
    return [
        {
            "epoch": epoch,
            "num_examples": 50_000,
            "num_classes": 10,
            **{key: factor * (2 + place) / epoch for place, key in enumerate(KEYS)},
            "train_error": 0.0 if zero is not None and epoch >= zero else 0.023,
            "nc4_mismatch": 0.1 / epoch,
            "test_accuracy": accuracy,
            "snr": [4.0, 3.0],
            **({"robustness": robustness[epoch], "robustness.median": robustness[epoch] / 2} if robustness else {}),
        }
        for epoch, accuracy in accuracies.items()
    ]


def write_run(
    path: Path,
    settings: dict[str, Any],
    records: list[dict[str, Any]],
    status: str = "finished",
    epoch: int | None = None,
) -> Path:
    """Write the files that figures and tables read."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", settings)  # as it is: some tests give what no run can have
    run = Run(path)
    for line in records:
        run.append_history(line)
    reached = (records[-1]["epoch"] if records else 0) if epoch is None else epoch
    run.write_status(Status(status=status, epoch=reached))
    return path
