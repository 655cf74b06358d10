"""Measured against predicted: how far SGD holds small networks from the central path, on scikit-learn's digits.

    python tools/proximity.py OUT                 # trains what OUT/runs.csv lacks, then draws OUT/proximity.png

Each run trains at one constant rate. At four times t = η·steps/(1−β), L⊥_LS/L is the mean over six measurements at most
ten steps apart. The two predictions are those of `neuralcollapse.theory.proximity`: the excess of the initial
classifier that tracks the features, which are recorded whenever t has grown by a twentieth, averaged over the same
steps; and the noise of the batches with the network as it is at the last of them. Features are those of one pass over
all training images in train mode, so that stale averages of batch normalisation have no part in it.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import neuralcollapse as nc
from neuralcollapse.data import load
from neuralcollapse.networks import registry
from neuralcollapse.theory.proximity import noise_share, tracking_excess

WIDTHS = {"mlp": 0.25, "vgg11": 0.125, "resnet18": 0.125}
GRID = list(itertools.product(WIDTHS, (0.0037, 0.0148), (32, 256), (0.0, 0.9), (0.0025, 0.02)))
"""Network, learning rate, batch size, momentum, weight decay: 48 runs."""
TIMES, MOST_STEPS = 30.0, 2000


def train(network: str, rate: float, batch: int, momentum: float, decay: float, data: Any) -> list[dict[str, Any]]:
    """One run: a row for each of four times."""
    torch.manual_seed(0)
    images, labels = data.train.images.float() / 255, data.train.labels.long()
    images = (images - images.mean()) / images.std()
    targets = F.one_hot(labels, 10).float()
    model = registry.build(network, num_classes=10, in_channels=1, image_size=8, width=WIDTHS[network])
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    steps = int(min(MOST_STEPS, TIMES * (1 - momentum) / rate))
    ends, rows, order = [round(steps * part) for part in (0.25, 0.5, 0.75, 1.0)], [], torch.empty(0)
    apart = max(1, min(10, ends[0] // 50))  # steps between the six measurements, so that they are of one time
    path, losses, last = [(0.0, moments_of(forward(model, head, images)[1], labels))], {}, 0
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(len(labels))
        chosen, order = order[:batch], order[batch:]
        model.train()
        loss = 0.5 * (model(images[chosen]) - targets[chosen]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        end = next(end for end in ends if step <= end)
        measured = end - 6 * apart < step and (end - step) % apart == 0
        if measured or 20 * (step - last) >= step:
            with torch.set_grad_enabled(step == end):  # the noise needs gradients
                outputs, features = forward(model, head, images)
            time, last = rate * step / (1 - momentum), step
            path.append((time, moments_of(features, labels)))
        if measured:
            parts = nc.decompose_mse(
                features.detach(), labels, head.weight.detach(), head.bias.detach(), weight_decay=decay
            )
            losses[len(path) - 1] = parts
        if step == end:
            excess = tracking_excess(path, weight, bias, weight_decay=decay)
            tracking = np.mean([excess[index] / parts.total for index, parts in losses.items()])
            shares = [parts.ls_perp / parts.total for parts in losses.values()]
            given = {"learning_rate": rate, "batch_size": batch, "momentum": momentum, "weight_decay": decay}
            data_loss = 0.5 * float((outputs.detach() - targets).square().sum(dim=1).mean())
            share = noise_share(outputs, features, labels, list(model.parameters()), probes=4, **given)
            noise = share * data_loss / parts.total
            error = float((outputs.argmax(dim=1) != labels).float().mean())
            rows.append(
                {"network": network, **given, "step": step, "time": time, "loss": parts.total, "train_error": error}
                | {"measured": float(np.mean(shares)), "tracking": float(tracking), "noise": noise}
            )
            losses.clear()
    return rows


def forward(model: nn.Module, head: nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and features in train mode, with the running averages left as they are."""
    entered: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.momentum = 0.0
    hook = head.register_forward_pre_hook(lambda _module, arguments: entered.append(arguments[0]))
    outputs = model.train()(images)
    hook.remove()
    for layer in layers:
        layer.momentum = 0.1
    return outputs, entered[0]


def moments_of(features: Tensor, labels: Tensor) -> nc.ClassMoments:
    """Of all training images."""
    moments = nc.ClassMoments(num_classes=10, dim=features.shape[1])
    moments.update(features.detach(), labels)
    return moments


def fit(runs: pd.DataFrame) -> float:
    """c of measured ≈ tracking + c · noise, by least squares of the relative error."""
    left, noise = 1 - runs["tracking"] / runs["measured"], runs["noise"] / runs["measured"]
    return float((left * noise).sum() / (noise * noise).sum())


def main() -> None:
    """Train, fit, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    table, data = out / "runs.csv", load("digits")
    runs = pd.read_csv(table) if table.exists() else pd.DataFrame()
    keys = ["network", "learning_rate", "batch_size", "momentum", "weight_decay"]
    done = set() if runs.empty else set(runs[keys].itertuples(index=False, name=None))
    for number, cell in enumerate(GRID, 1):
        if cell not in done:
            runs = pd.concat([runs, pd.DataFrame(train(*cell, data))], ignore_index=True)
            runs.to_csv(table, index=False)
            print(f"{number}/{len(GRID)} {cell}: L⊥/L {runs['measured'].iloc[-1]:.4f}", flush=True)
    report(runs, out)


def report(runs: pd.DataFrame, out: Path) -> None:
    """Print the fit and its errors, each network's from the fit to the others, and draw."""
    import matplotlib
    from matplotlib.figure import Figure

    from neuralcollapse.plots import style
    from neuralcollapse.plots.options import Drawing

    matplotlib.rcParams.update(style.rc(Drawing()))
    c = fit(runs)
    predictions = {
        "noise alone, first order in η": runs["noise"],
        "tracking, nothing fitted": runs["tracking"],
        f"tracking + {c:.1f} × noise": runs["tracking"] + c * runs["noise"],
    }
    for name, predicted in predictions.items():
        print(f"{name}: {described(predicted / runs['measured'])}")
    figure = Figure(figsize=(style.WIDTHS["iclr"], 2.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for (network, rows), marker, color in zip(runs.groupby("network"), "os^", style.CLASS_COLORS[:3], strict=True):
        others = fit(runs[runs["network"] != network])
        print(f"{network} by the others' c of {others:.2f}: "
              f"{described((rows['tracking'] + others * rows['noise']) / rows['measured'])}")  # fmt: skip
        look = {"linestyle": "", "marker": marker, "color": color, "markersize": 3, "alpha": 0.8, "label": network}
        for axis, predicted in zip(panels, predictions.values(), strict=True):
            axis.plot(predicted[rows.index], rows["measured"], **look)
    limits = (runs[["measured", "tracking"]].min().min() / 1.3, 1.2)
    for axis, (name, predicted) in zip(panels, predictions.items(), strict=True):
        style.log_axis(axis, "x")
        style.log_axis(axis, "y")
        axis.plot(limits, limits, color=style.GREY, linewidth=0.8)
        axis.set(
            xlabel=f"predicted L⊥/L:\n{name}", xlim=(min(limits[0], predicted.min() / 1.3), limits[1]), ylim=limits
        )
    panels[0].set_ylabel("measured L⊥/L")
    panels[2].legend(loc="lower right")
    figure.savefig(out / "proximity.png")
    figure.savefig(out / "proximity.svg", metadata={"Date": None})


def described(ratio: pd.Series) -> str:
    """Predicted over measured: the median, the middle eight tenths, and how many are within a factor of 2."""
    within = ((ratio > 0.5) & (ratio < 2)).mean()
    low, middle, high = ratio.quantile([0.1, 0.5, 0.9])
    tenths = f"10th to 90th percentile {low:.2f} to {high:.2f}"
    return f"{len(ratio)} points, median {middle:.2f}, {tenths}, {within:.0%} within a factor of 2"


if __name__ == "__main__":
    main()
