"""The Lightning callback: every number of the report logged, and training stopped when NC1 is small enough.

Accuracy on the training data is useless for telling when to stop in the phase where it is 100 %; NC1 goes on falling.

    pip install -e '.[lab,lightning]'       # scikit-learn too, which the digits come with
    python examples/lightning_callback.py   # about 8 s on one core
    python examples/lightning_callback.py --report nc.html --figure nc1.pdf    # and a page to explore, and NC1 drawn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc
from neuralcollapse.integrations.lightning import NeuralCollapse


class Digits(lightning.LightningModule):
    """A small network for 8×8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU()),
            *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()),
            nn.Linear(256, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits: what the callback calls."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Weight decay is what drives collapse."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)


def main() -> None:
    """Train until NC1 is below a threshold, and print what was logged."""
    parser = argparse.ArgumentParser(description="Neural Collapse as a Lightning callback.")
    parser.add_argument("--epochs", type=int, default=100, help="at most")
    parser.add_argument("--until", type=float, default=0.1, help="NC1 to stop at")
    parser.add_argument("--report", type=Path, help="HTML file in which the training is explored")
    parser.add_argument("--figure", type=Path, help="picture of NC1 over the epochs, such as nc1.pdf")
    arguments = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))

    collapse = NeuralCollapse()
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[
            collapse,  # first, so that what it logs is there for the others
            EarlyStopping(monitor="nc/nc1", stopping_threshold=arguments.until, patience=arguments.epochs),
        ],
        accelerator="cpu",
        # nothing is written; give a logger and it gets every number
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), DataLoader(data, batch_size=64, shuffle=True))

    print("epoch  accuracy       NC1       NC3       NC4")
    for line in collapse.history:
        print(
            f"{line['epoch']:5}  {line['accuracy']:8.2%}  {line['nc1']:8.4f}  {line['nc3']:8.4f}"
            f"  {line['nc4_mismatch']:8.2%}"
        )
    print(f"Stopped after {trainer.current_epoch} epochs at nc/nc1 = {trainer.callback_metrics['nc/nc1']:.4f}")
    history = nc.History.from_monitor(collapse, run="digits", loss="ce")
    if arguments.report is not None:
        history.report(arguments.report)
    if arguments.figure is not None:
        history.plot("nc1").figure.savefig(arguments.figure)


if __name__ == "__main__":
    main()
