"""The algebra of docs/proposition-2.md, by SymPy."""

from __future__ import annotations

import sympy as sp

from neuralcollapse.theory.central_path import flow_constants

C, N, w, lam, t = sp.symbols("C N omega lambda t", positive=True)
kappa = 1 + lam
a = w / (C * kappa + w**2)


def vanishes(expression: sp.Expr) -> bool:
    return sp.simplify(sp.together(expression)) == 0


def test_step_1_the_classifier_minimises_the_loss_of_step_2() -> None:
    free = sp.Symbol("a")
    loss = ((1 - free * w) ** 2 / C + kappa * free**2) / 2
    (best,) = sp.solve(sp.diff(loss, free), free)
    assert vanishes(best - a)


def test_step_3_the_loss_simplifies() -> None:
    assert vanishes(1 - a * w - C * kappa / (C * kappa + w**2))
    assert vanishes((1 - a * w) ** 2 / C + kappa * a**2 - kappa / (C * kappa + w**2))
    # the two halves, as CentralPath.metrics has them
    assert vanishes((1 - a * w) ** 2 / C - C * kappa**2 / (C * kappa + w**2) ** 2)
    assert vanishes(kappa * a**2 - kappa * w**2 / (C * kappa + w**2) ** 2)


def test_step_4_the_two_flows() -> None:
    projected = -(a * (a * w - 1)) / (C * N)
    assert vanishes(projected - kappa / N * w / (C * kappa + w**2) ** 2)
    multiplicative = projected + a**2 * w / (C * N)
    assert vanishes(multiplicative - w / (C * N * (C * kappa + w**2)))


def test_step_4_the_flow_descends_the_loss() -> None:
    """A class mean stands for N examples, so moving them against the gradient moves it at −1/N times the mean's own."""
    loss = kappa / (C * kappa + w**2) / 2
    assert vanishes(-sp.diff(loss, w) / N - kappa / N * w / (C * kappa + w**2) ** 2)


def test_step_5_the_constants_integrate_both_flows() -> None:
    for flow, rate in (
        ("projected", kappa / N * w / (C * kappa + w**2) ** 2),
        ("multiplicative", w / (C * N * (C * kappa + w**2))),
    ):
        c1, c2, c3 = (sp.nsimplify(c) for c in flow_constants(C, N, lam, flow))  # type: ignore[arg-type]
        elapsed = c1 * sp.log(w) + c2 * w**2 + c3 * w**4
        assert vanishes(sp.diff(elapsed, w) * rate - 1)


def test_step_6_a_larger_singular_value_grows_more_slowly_in_proportion() -> None:
    for rate in (kappa / N / (C * kappa + w**2) ** 2, 1 / (C * N * (C * kappa + w**2))):
        assert sp.simplify(sp.diff(rate, w)).is_negative
    assert sp.limit((t / (N / (4 * kappa))) ** sp.Rational(1, 4), t, sp.oo) == sp.oo
