"""Each loss, head, optimiser and data option trains digits, and shows the effect it is known for.

All runs share one small network and length. The bounds keep at least a factor of 1.2, mostly 2, from what three seeds
gave; the runs are deterministic on a processor, and differ between processors by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralcollapse import data as datasets
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

SMALL: dict[str, Any] = {
    "model": "mlp",
    "width": 0.0625,
    "examples_per_class": 50,
    "epochs": 50,
    "batch_size": 64,
    "precision": "32",
    "device": "cpu",
}
RATES = {"mse": 0.03, "mse-torch": 0.15, "rescaled-mse": 0.15}
"""Of SGD: eight times the demo's, so that fifty epochs suffice."""
CHANCE = 0.1


@dataclass(frozen=True)
class Trained:
    """A finished run: its history and the snapshots of its first and last epoch."""

    run: Run
    history: list[dict[str, Any]]
    first: dict[str, np.ndarray]
    last: dict[str, np.ndarray]

    def end(self, key: str) -> float:
        return float(self.history[-1][key])

    @property
    def zero_error(self) -> float:
        """The first epoch without an error; infinite without one."""
        return next((record["epoch"] for record in self.history if record["train_error"] == 0), math.inf)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """Trains once for each choice of settings."""
    done: dict[tuple[tuple[str, Any], ...], Trained] = {}

    def make(**settings: Any) -> Trained:
        key = tuple(sorted(settings.items()))
        if key not in done:
            if settings.get("optimizer") in (None, "sgdw") and (rate := RATES.get(settings.get("loss", "mse"))):
                settings["learning_rate"] = rate
            if settings.get("optimizer") != "lbfgs":
                settings["milestones"] = (0.6, 0.85)
            run, data = prepare(TrainingConfig(**{**SMALL, **settings}), out=tmp_path_factory.mktemp("options") / "run")
            assert train(run, data) == "finished"
            ends = []
            for path in (run.snapshots()[1], list(run.snapshots().values())[-1]):
                with np.load(path, allow_pickle=False) as content:
                    ends.append({name: content[name] for name in content.files})
            done[key] = Trained(run, run.history(), *ends)
        return done[key]

    return make


def cosines(vectors: np.ndarray) -> float:
    """The mean cosine over pairs."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float((unit @ unit.T)[~np.eye(len(unit), dtype=bool)].mean())


def doubt(run: Trained) -> float:
    """1 minus the mean probability of the true class, over the training examples of the snapshot."""
    logits = run.last["features"] @ run.last["weight"].T + run.last["bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return 1 - float((powers / powers.sum(axis=1, keepdims=True))[np.arange(len(logits)), run.last["labels"]].mean())


def test_label_smoothing_collapses_further_and_stays_less_certain(trained: Callable[..., Trained]) -> None:
    """Guo et al. (2024, Cross entropy versus label smoothing); at the optimum p_y is 1 - ε + ε/C, 0.91 here."""
    smooth, plain = trained(loss="label-smoothing"), trained(loss="ce")
    assert smooth.end("nc1") < 0.9 * plain.end("nc1")
    assert smooth.zero_error < math.inf and doubt(smooth) == pytest.approx(0.09, abs=0.02)


def test_focal_loss_leaves_the_network_less_certain_of_what_it_has_learnt(trained: Callable[..., Trained]) -> None:
    """Mukhoti et al. (2020, Calibrating deep neural networks using focal loss)."""
    focal, plain = trained(loss="focal"), trained(loss="ce")
    assert focal.zero_error < math.inf and focal.end("nc1") < 0.5 * focal.history[0]["nc1"]
    assert doubt(focal) > 5 * doubt(plain)


def test_rescaled_mse_learns_many_classes_sooner(trained: Callable[..., Trained], tmp_path: Path) -> None:
    """Hui & Belkin (2021); forty classes: which digit, in which quarter of the picture."""
    digits = datasets.load("digits", examples_per_class=20)
    arrays = {}
    for half, part in (("train", digits.train), ("test", digits.test)):
        images = np.zeros((4, len(part.labels), 16, 16), np.uint8)
        for quarter in range(4):
            row, column = 8 * (quarter // 2), 8 * (quarter % 2)
            images[quarter, :, row : row + 8, column : column + 8] = part.images.numpy()[:, 0]
        arrays[f"{half}_images"] = images.reshape(-1, 16, 16)
        arrays[f"{half}_labels"] = np.concatenate([part.labels.numpy() + 10 * quarter for quarter in range(4)])
    path = tmp_path / "quarters.npz"
    np.savez(path, **arrays)
    many = {"dataset": "npz", "data_dir": path, "examples_per_class": None, "epochs": 15, "weight_decay": 1e-4}
    plain, rescaled = trained(loss="mse-torch", **many), trained(loss="rescaled-mse", **many)
    assert (rescaled.run.config.rescale, rescaled.run.config.target) == (1, 15)
    assert rescaled.end("train_error") < 0.5 * plain.end("train_error")


def test_a_fixed_etf_head_stays_as_it_is_and_the_features_come_to_it(trained: Callable[..., Trained]) -> None:
    """Zhu et al. (2021), Yang et al. (2022)."""
    fixed, free = trained(loss="ce", head="etf"), trained(loss="ce")
    assert fixed.first["weight"].tobytes() == fixed.last["weight"].tobytes()
    assert cosines(fixed.last["weight"]) == pytest.approx(-1 / 9, abs=1e-6)
    assert fixed.end("nc2.maximal_angle_means") < 0.5 * free.end("nc2.maximal_angle_means")
    assert fixed.end("nc1") < 0.15 * fixed.history[0]["nc1"] and fixed.zero_error < math.inf


def test_the_nearest_etf_head_stays_a_simplex_and_comes_to_the_features(trained: Callable[..., Trained]) -> None:
    """Markou, Ajanthan & Gould (2024): the means need not turn towards the frame, so that they agree with it sooner."""
    nearest, fixed = trained(loss="ce", head="nearest-etf"), trained(loss="ce", head="etf")
    assert nearest.first["weight"].tobytes() != nearest.last["weight"].tobytes()
    unit = nearest.last["weight"] @ nearest.last["weight"].T
    np.testing.assert_allclose(unit, 10 / 9 * np.eye(10) - 1 / 9, atol=1e-6)
    assert nearest.history[2]["nc3"] < 0.6 * fixed.history[2]["nc3"]
    assert nearest.zero_error < math.inf and nearest.end("nc1") < 0.15 * nearest.history[0]["nc1"]


def test_feature_decay_shrinks_the_features_and_classifier_decay_the_classifier(
    trained: Callable[..., Trained],
) -> None:
    """Zhu et al. (2021): the model of unconstrained features penalises H in the place of the weights below it."""

    def size(run: Trained, name: str) -> float:
        return float(np.square(run.last[name]).sum(axis=1).mean())

    free = {"weight_decay": 0.0, "classifier_decay": 0.01}
    small, large = (trained(feature_decay=decay, **free) for decay in (0.001, 0.01))
    assert size(large, "features") < 0.5 * size(small, "features")
    assert size(large, "weight") > 1.2 * size(small, "weight")  # ‖W‖²λ_W = Ave‖h‖² λ_H at the minimum
    assert large.end("feature_penalty") == pytest.approx(0.005 * size(large, "features"), rel=0.2)
    assert "feature_penalty" not in trained().history[-1]


def test_without_bias_the_classifier_leaves_the_simplex_for_an_orthogonal_frame(
    trained: Callable[..., Trained],
) -> None:
    """Tirer & Bruna (2022): ‖Wᵀ1‖²/‖W‖² is 0 at a simplex ETF and 1 at an orthogonal frame."""

    def row_sums(run: Trained) -> float:
        weight = run.last["weight"]
        return float(np.square(weight.sum(axis=0)).sum() / np.square(weight).sum())

    without, plain = trained(head="no-bias"), trained()
    assert not without.last["bias"].any() and plain.last["bias"].any()
    assert row_sums(without) > 2.5 * row_sums(plain)


def test_the_normalised_head_collapses_sooner(trained: Callable[..., Trained]) -> None:
    """Yaras et al. (2022, Neural collapse with normalized features)."""
    unit, plain = trained(head="normalised"), trained()
    np.testing.assert_allclose(np.linalg.norm(unit.last["features"], axis=1), 1, rtol=1e-5)
    assert unit.end("nc1") < 0.5 * plain.end("nc1")
    assert unit.run.config.temperature == 1


def test_decoupled_decay_weakens_collapse_in_adam_and_not_in_sgd(trained: Callable[..., Trained]) -> None:
    """Zhao et al. (2026, Optimizer choice matters for the emergence of neural collapse)."""
    same = {"learning_rate": 0.01, "weight_decay": 0.01}
    coupled, decoupled = trained(optimizer="adam", **same), trained(optimizer="adamw", **same)
    assert coupled.zero_error < math.inf and decoupled.zero_error < math.inf
    assert decoupled.end("nc3") > 3 * coupled.end("nc3")
    assert decoupled.end("nc2.maximal_angle_means") > 1.4 * coupled.end("nc2.maximal_angle_means")
    sgd, sgdw = trained(), trained(optimizer="sgdw")
    assert sgdw.run.config.weight_decay == pytest.approx(0.1)
    assert sgdw.run.config.measured_weight_decay == pytest.approx(sgd.run.config.measured_weight_decay)
    for key in ("nc1", "nc2.maximal_angle_means", "nc3", "mse.total"):
        assert sgdw.end(key) == pytest.approx(sgd.end(key), rel=0.2)


def test_lbfgs_collapses_in_fewer_epochs(trained: Callable[..., Trained]) -> None:
    """Zhu et al. (2021): collapse does not depend on the algorithm; 20 steps of full batches against 400 of SGD."""
    newton, sgd = trained(optimizer="lbfgs", batch_size=None, epochs=20), trained()
    assert newton.run.config.batch_size == 500
    for key in ("nc1", "nc3"):
        assert newton.end(key) < 0.2 * sgd.end(key)


def test_label_noise_delays_zero_error(trained: Callable[..., Trained]) -> None:
    noisy, clean = trained(label_noise=0.2), trained()
    assert noisy.zero_error > 1.5 * clean.zero_error
    assert 0.02 < noisy.end("train_error") < 0.16  # part of the wrong labels is learnt already
    assert noisy.run.config.label_noise == 0.2


def test_random_labels_are_learnt_by_heart(trained: Callable[..., Trained]) -> None:
    """Zhang et al. (2017): most of them, and the test accuracy stays at chance."""
    random = trained(label_noise=1.0)
    assert random.end("train_error") < 0.3
    assert abs(random.end("test_accuracy") - CHANCE) < 0.08  # 300 test images: 4.6 σ


def test_minority_classes_lose_their_angle_under_step_imbalance(trained: Callable[..., Trained]) -> None:
    """Minority collapse (Fang et al., 2021): the small classes' classifiers draw together."""
    step, balanced = trained(imbalance="step", imbalance_ratio=50.0), trained()
    small = cosines(step.last["weight"][5:])
    assert small > cosines(step.last["weight"][:5]) + 0.1
    assert small > cosines(balanced.last["weight"][5:]) + 0.08
    assert step.run.config.num_examples == 5 * 50 + 5 * 1


def test_classifiers_shrink_along_an_exponential_tail(trained: Callable[..., Trained]) -> None:
    """The norms follow the class sizes (Fang et al., 2021; Thrampoulidis et al., 2022); balanced, they are equal."""
    tail, balanced = trained(imbalance="exponential", imbalance_ratio=50.0), trained()
    norms = {name: np.linalg.norm(run.last["weight"], axis=1) for name, run in (("tail", tail), ("even", balanced))}
    assert norms["tail"][-3:].mean() < 0.75 * norms["tail"][:3].mean()
    assert norms["even"][-3:].mean() == pytest.approx(norms["even"][:3].mean(), rel=0.12)
