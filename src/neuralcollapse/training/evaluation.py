"""The measurement after an epoch: the last layer's report on the training set, the test accuracy, and a snapshot.

Always in eval mode and in float32, TF32 off, whatever the precision of training: the spread within a class falls below
the rounding of shorter formats long before training ends. Products of features are made in float64.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._errors import InputError
from neuralcollapse._files import finite
from neuralcollapse._linalg import full_precision
from neuralcollapse.data import Batches, Dataset
from neuralcollapse.measuring.batch_norm import batch_norm_layers, reestimated
from neuralcollapse.measuring.classifier import find_classifier
from neuralcollapse.measuring.collect import Outputs, collect_outputs
from neuralcollapse.measuring.measure import measure_features
from neuralcollapse.measuring.preparation import evaluation
from neuralcollapse.measuring.report import Report
from neuralcollapse.theory.corollaries import path_ratio
from neuralcollapse.training import losses
from neuralcollapse.training.builders import make_batches
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.robustness import relative_perturbations, robustness_subset, summarize
from neuralcollapse.training.run_directory import PER_CLASS

SNAPSHOT_EXAMPLES_PER_CLASS = 30
_SAME_EITHER_WAY = ("layer", "notes", "num_examples", "num_classes", "classes_present", "dim", "weighting")


class Diverged(Exception):
    """The network's outputs are no longer finite numbers, or too large to be measured."""


class Analysis:
    """Measures a network on one data set; the same examples in the same order every time.

    Args:
        net: the network, trained in place between measurements.
        config: the run's configuration.
        data: the data set.
        device: where the network is.

    Raises:
        InputError: the network has no linear layer that gives its logits.
    """

    def __init__(self, net: nn.Module, config: RunConfig, data: Dataset, device: torch.device) -> None:
        self._config = config
        self._objective = losses.objective(config)
        self._train = make_batches(data.train, data, config, device, shuffle_seed=None)
        self._test = make_batches(data.test, data, config, device, shuffle_seed=None)
        self._shuffled = make_batches(data.train, data, config, device, shuffle_seed=config.seed)
        self._attacked: Batches | None = None
        if config.robustness_examples:
            # pixels of 0 … 1, which the attacked network normalises itself
            zeros, ones = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
            pixels = dataclasses.replace(data, mean=zeros, std=ones)
            subset = robustness_subset(data.test, config.robustness_examples)
            self._attacked = make_batches(subset, pixels, config, device, shuffle_seed=None)
        self._mean, self._std = data.mean, data.std
        self._net = net
        self._layer = find_classifier(net, lambda: net(next(iter(self._train))[0]))
        labels = data.train.labels
        members = [(labels == label).nonzero().flatten() for label in range(len(data.class_names))]
        self._chosen = torch.cat([each[:SNAPSHOT_EXAMPLES_PER_CLASS] for each in members]).sort().values

    def __call__(self, epoch: int, rate: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Measure after an epoch.

        Returns:
            The history record, wall-clock time not yet in it, and the arrays of the snapshot.

        Raises:
            Diverged: an output of the network is not finite, or too large.
        """
        config = self._config
        statistics = config.batch_norm_statistics
        with self._reestimated() if statistics == "re-estimated" else contextlib.nullcontext():
            numbers, report, train = self._measure()
            robustness = self._robustness()
        record = {"epoch": epoch, "learning_rate": rate, **numbers}
        if config.feature_decay:
            record["feature_penalty"] = float(losses.feature_penalty(train.features.double(), config.feature_decay))
        if config.notebook_weight_decay:
            decay = losses.notebook_weight_decay(config.loss, config.measured_weight_decay, config.num_classes)
            again = _numbers(self._report(train, decay))
            record |= {f"notebook.{key}": value for key, value in again.items() if key.startswith("mse.")}
        if statistics == "both":
            with self._reestimated():
                again, _, _ = self._measure()
            record |= {f"re_estimated.{key}": value for key, value in again.items() if key not in _SAME_EITHER_WAY}
        record |= robustness
        snapshot = {
            "class_means": report.means.float(),
            "global_mean": report.global_mean.float(),
            "weight": train.weight,
            "bias": _bias(train),
            "features": train.features[self._chosen.to(train.features.device)],
            "labels": train.labels[self._chosen.to(train.labels.device)],
        }
        by_class = {f"{PER_CLASS}{name}": array for name, array in report.per_class.to_arrays().items()}
        arrays = {name: value.cpu().numpy() for name, value in snapshot.items()}
        # where a number is not defined, as NC1 of means that coincide, no class has it
        return record, arrays | {name: array for name, array in by_class.items() if np.isfinite(array).all()}

    def _measure(self) -> tuple[dict[str, Any], Report, Outputs]:
        """Losses and accuracies of the network as it is, its report, and the outputs on the training set."""
        with full_precision(self._layer.weight.device):
            train = collect_outputs(self._net, self._train, self._layer)
            test = collect_outputs(self._net, self._test, self._layer)
        if not bool(torch.isfinite(train.logits).all() and torch.isfinite(train.features).all()):
            raise Diverged
        report = self._report(train, self._config.measured_weight_decay)
        assert report.accuracy is not None  # the features themselves were given
        numbers = {
            "loss": float(self._objective(train.logits.double(), train.labels)),
            "train_error": 1 - report.accuracy,
            "train_accuracy": report.accuracy,
            "test_accuracy": float((test.logits.argmax(dim=1) == test.labels).double().mean()),
            **_numbers(report),
        }
        return numbers, report, train

    def _robustness(self) -> dict[str, float]:
        """Of the network as it is; empty where it is not asked for."""
        if self._attacked is None:
            return {}
        mean, std, size = self._mean, self._std, self._config.batch_size
        ratios = [relative_perturbations(self._net, x, mean, std, batch_size=size) for x, _ in self._attacked]
        return summarize(torch.cat(ratios))

    def _report(self, train: Outputs, decay: float) -> Report:
        features, labels, name = train.features.double(), train.labels, train.layer
        try:
            return measure_features(features, labels, train.weight, _bias(train), weight_decay=decay, layer=name)
        except InputError as error:  # the classifier is no longer finite
            raise Diverged from error

    @contextlib.contextmanager
    def _reestimated(self) -> Iterator[None]:
        """Within the block, batch normalisation uses averages over one more epoch of training batches.

        That epoch is number 0, whose order no epoch of the training has.
        """
        layers = batch_norm_layers(self._net)
        forwards = ((len(images), functools.partial(self._net, images)) for images, _ in self._shuffled.epoch(0))
        with evaluation(self._net), full_precision(self._layer.weight.device), reestimated(self._net, layers, forwards):
            yield


def _numbers(report: Report) -> dict[str, Any]:
    """The report's, and what theory says that L_NC2/3 / L_NC1 is on the central path."""
    ratio = path_ratio(report.moments, report.mse.weight_decay)
    return {**report.to_dict(), "mse.path_ratio": finite(ratio)}


def _bias(train: Outputs) -> Tensor:
    return train.weight.new_zeros(len(train.weight)) if train.bias is None else train.bias
