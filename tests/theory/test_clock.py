"""One clock for all singular values: recovered where there is one, and honest where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import neuralcollapse as nc
from neuralcollapse.theory.clock import fit_clock

START = np.array([3.0, 1.5, 0.4])
PATH = {"num_classes": 4, "samples_per_class": 30}
EPOCHS = np.array([1.0, 2, 4, 8, 16, 32])


@pytest.mark.parametrize("flow", ["projected", "multiplicative"])
def test_a_clock_that_exists_is_found(flow: str) -> None:
    clock = np.array([0.0, 1.0, 30.0, 31.0, 5e3, 1e6])
    omega = nc.CentralPath(START, flow=flow, **PATH).singular_values(clock)  # type: ignore[arg-type]
    fit = fit_clock(EPOCHS, omega, flow=flow, **PATH)  # type: ignore[arg-type]
    np.testing.assert_allclose(fit.times[1:], clock[1:], rtol=1e-4)
    assert fit.residual.max() < 1e-6 < fit.unmoved[-1]
    np.testing.assert_allclose(fit.predicted, omega, rtol=1e-6)
    np.testing.assert_allclose(fit.measured_condition, fit.predicted_condition, rtol=1e-6)


def test_values_that_grow_in_proportion_have_no_clock() -> None:
    """On the path the ratios fall; growth by one factor keeps them, and the residual says so."""
    omega = START * np.array([1.0, 2, 4, 8, 16, 32])[:, None]
    fit = fit_clock(EPOCHS, omega, **PATH)
    assert fit.residual[-1] > 0.3 and (fit.residual <= fit.unmoved + 1e-12).all()
    np.testing.assert_allclose(fit.exponent, 1.0, rtol=1e-10)
    np.testing.assert_allclose(fit.measured_condition, 7.5)
    assert fit.predicted_condition[-1] < 2


def test_the_clock_never_goes_back() -> None:
    omega = nc.CentralPath(START, **PATH).singular_values(np.array([0.0, 50.0, 5e3, 60.0, 1e4, 2e4]))
    fit = fit_clock(EPOCHS, omega, **PATH)
    assert (np.diff(fit.times) >= 0).all() and fit.times[3] == fit.times[2]
    assert fit.residual[3] > 0.05 > fit.residual[4]


def test_impossible_measurements_are_named() -> None:
    with pytest.raises(nc.InputError, match=r"positive, finite singular values at every epoch, got inf"):
        fit_clock(EPOCHS[:2], np.array([[1.0, 0.5], [np.inf, 1.0]]), **PATH)
    with pytest.raises(nc.InputError, match="two or more epochs"):
        fit_clock(EPOCHS[:1], START[None], **PATH)
    with pytest.raises(nc.InputError, match="num_classes of at least 2, got 0"):
        fit_clock(EPOCHS[:2], np.ones((2, 2)), **{**PATH, "num_classes": 0}, flow="none")
    with pytest.raises(nc.InputError, match="samples per class, got 0"):
        fit_clock(EPOCHS[:2], np.ones((2, 2)), **{**PATH, "samples_per_class": 0}, flow="none")
    with pytest.raises(nc.InputError, match="weight decay"):
        fit_clock(EPOCHS[:2], np.ones((2, 2)), **PATH, weight_decay="x", flow="none")  # type: ignore[arg-type]
    with pytest.raises(nc.InputError, match="at most C − 1 = 1 singular values a row, got 2"):
        fit_clock(EPOCHS[:2], np.ones((2, 2)), num_classes=2, samples_per_class=10, flow="none")


def test_a_spectrum_of_five_decades_has_its_best_time() -> None:
    """Found by trying many: the smallest value wants a time a billion times shorter than the largest."""
    omega, sizes = np.array([[1e3, 1e-2], [1.2e3, 1.5e-2]]), {"num_classes": 3, "samples_per_class": 10}
    fit = fit_clock([1, 2], omega, **sizes)
    many = nc.CentralPath(omega[0], **sizes).singular_values(np.geomspace(1e-6, 1e13, 20_001))
    misfits = np.sqrt(np.square(np.log(omega[1] / many)).mean(axis=1))
    assert fit.residual[1] == pytest.approx(misfits.min(), rel=1e-6) and fit.residual[1] < 0.5 * fit.unmoved[1]


def test_what_the_caller_writes_later_changes_nothing() -> None:
    omega = nc.CentralPath(START, **PATH).singular_values(np.array([0.0, 50.0]))
    fit, kept = fit_clock(EPOCHS[:2], omega, **PATH), omega.copy()
    omega[:] = 0
    assert np.array_equal(fit.measured, kept)
