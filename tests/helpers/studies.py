"""A study made of small synthetic run directories, whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralcollapse._files import append_line
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


def config(dataset: str = "mnist", model: str = "vgg11", loss: str = "mse", **changes: Any) -> RunConfig:
    """A configuration as `neuralcollapse run` writes it, of the paper's own size and recipe."""
    paper = recipes.paper_recipe(dataset if dataset in recipes.PAPER_DATASETS else "mnist", model, loss)
    fields = {
        "dataset": dataset,
        "dataset_title": NAMES.get(dataset, dataset),
        "num_examples": 50_000,
        "num_test_examples": 10_000,
        "num_classes": 10,
        "class_names": [],
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
    return RunConfig.from_json(fields, "test")


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
    settings: RunConfig,
    records: list[dict[str, Any]],
    status: str = "finished",
    epoch: int | None = None,
) -> Path:
    """Write the files that figures and tables read."""
    run = Run.create(path, settings)
    for line in records:
        append_line(run.history_path, line)
    reached = (records[-1]["epoch"] if records else 0) if epoch is None else epoch
    run.write_status(Status(status=status, epoch=reached, epochs=settings.epochs))
    return path
