"""Re-estimated batch-normalisation statistics against averages written out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.gloo import on_processes
from helpers.normalised import measure_part, network, trained_like
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse import InputError
from neuralcollapse.measuring.batch_norm import batch_norm_layers, reestimated


def batches(sizes: tuple[int, ...] = (7, 7, 3)) -> list[Tensor]:
    return [torch.randn(size, 2, 6, 6) for size in sizes]


def forwards(net: nn.Module, data: list[Tensor]) -> Iterator[tuple[int, Callable[[], object]]]:
    for batch in data:
        yield len(batch), lambda batch=batch: net(batch)  # type: ignore[misc]


def by_hand(net: nn.Sequential, data: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means and variances of what enters the two layers, each batch normalised by its own statistics."""
    sums: list[Tensor | float] = [0.0] * 4
    for batch in data:
        first = net[0](batch).double()
        mean, variance = first.mean(dim=(0, 2, 3)), first.var(dim=(0, 2, 3), unbiased=False)
        count = first.numel() / first.shape[1]
        normal = (first - mean[:, None, None]) / (variance[:, None, None] + net[1].eps).sqrt()
        second = net[4].double()(normal.clamp(min=0).flatten(1))
        net[4].float()
        found = [mean, variance * count / (count - 1), second.mean(dim=0), second.var(dim=0)]
        sums = [total + len(batch) * each for total, each in zip(sums, found, strict=True)]
    size = sum(len(batch) for batch in data)
    return tuple(total / size for total in sums)  # type: ignore[return-value]


def test_the_averages_are_those_of_the_batches_by_size() -> None:
    net, data = network().eval(), batches()
    with torch.no_grad():
        want = by_hand(net, data)
    with reestimated(net, batch_norm_layers(net), forwards(net, data)):
        got = (net[1].running_mean, net[1].running_var, net[5].running_mean, net[5].running_var)
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)
        assert not any(module.training for module in net.modules())


@pytest.mark.parametrize("failing", [False, True])
def test_the_network_is_left_as_it_was(failing: bool) -> None:
    net = network().train()
    net[1].momentum = 0.3
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layers = batch_norm_layers(net)
    net.eval()

    def work() -> None:
        with reestimated(net, layers, forwards(net, batches())):
            assert not torch.equal(net[1].running_mean, before["1.running_mean"])
            if failing:
                raise KeyError

    if failing:
        with pytest.raises(KeyError):
            work()
    else:
        work()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[1].momentum == 0.3 and not net[1].training


def test_an_error_in_a_forward_pass_leaves_the_network_as_it_was() -> None:
    net = network().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with (
        pytest.raises(RuntimeError),
        reestimated(net, batch_norm_layers(net), forwards(net, [*batches(), torch.randn(4, 1)])),
    ):
        pass
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_frozen_layers_and_layers_without_averages_are_left_out() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)).train()
    net[1].eval()
    assert batch_norm_layers(net) == [net[0]]
    assert batch_norm_layers(net.eval()) == [net[0], net[1]]


def test_dropout_stays_off_and_a_layer_that_does_not_run_keeps_its_averages() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.norm, self.unused = nn.Dropout(0.9), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.norm(self.drop(x))
            return result

    net = Net().eval()
    with torch.no_grad():
        net.unused.running_mean.fill_(3.0)
    data = [torch.randn(50, 4), torch.randn(50, 4)]
    with reestimated(net, batch_norm_layers(net), forwards(net, data)):
        torch.testing.assert_close(net.norm.running_mean, torch.cat(data).mean(dim=0), rtol=1e-5, atol=1e-6)
        assert bool((net.unused.running_mean == 3.0).all())


def test_a_layer_called_twice_averages_both_calls() -> None:
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(norm, nn.Linear(2, 2), norm).eval()
    data = torch.randn(20, 2)
    with torch.no_grad():
        once = (data - data.mean(0)) / (data.var(0, unbiased=False) + norm.eps).sqrt()
        want = (data.mean(0) + net[1](once).mean(0)) / 2
    with reestimated(net, batch_norm_layers(net), forwards(net, [data])):
        torch.testing.assert_close(norm.running_mean, want, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_done_is_said() -> None:
    plain = nn.Linear(2, 2)
    with (
        pytest.raises(InputError, match="expected a network with batch normalisation"),
        reestimated(plain, [], iter(())),
    ):
        pass
    net = network().eval()
    layers = batch_norm_layers(net)
    with (
        pytest.raises(InputError, match="at least two examples"),
        reestimated(net, layers, forwards(net, batches((1, 1)))),
    ):
        pass


def reference_report(net: nn.Sequential, data: list[tuple[Tensor, Tensor]]) -> nc.Report:
    """Of a copy whose averages are PyTorch's own cumulative ones over the batches."""
    copied = copy.deepcopy(net)
    for layer in copied.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.reset_running_stats()
            layer.momentum = None
    copied.train()
    with torch.no_grad():
        for batch, _ in data:
            copied(batch)
    return nc.measure(copied, data)


def test_measure_gives_the_numbers_of_a_network_with_fresh_averages() -> None:
    net, data = trained_like()
    want, stale = reference_report(net, data), nc.measure(net, data)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = nc.measure(net, data, batch_norm="re-estimate")
    assert report.nc1 == pytest.approx(want.nc1, rel=1e-4) and report.nc3 == pytest.approx(want.nc3, rel=1e-4)
    assert abs(stale.nc1 / want.nc1 - 1) > 0.01
    assert any("re-estimated" in note for note in report.notes) and not stale.notes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    layers = nc.measure_layers(net, data, batch_norm="re-estimate")
    assert layers[report.layer].report.nc1 == pytest.approx(want.nc1, rel=1e-4)
    monitor = nc.Monitor(net, data, batch_norm="re-estimate")
    again = monitor(1)
    assert again is not None and again.nc1 == report.nc1


def test_a_second_pass_normalises_alike() -> None:
    net, data = trained_like()
    kept = nc.measure(net, data, batch_norm="re-estimate")
    streamed = nc.measure(net, data, batch_norm="re-estimate", memory_budget=0)
    assert streamed.nc4_mismatch == kept.nc4_mismatch and streamed.nc1 == kept.nc1


def test_two_processes_share_their_averages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, data = trained_like()
    want = nc.measure(net, data, batch_norm="re-estimate").nc1
    on_processes(2, tmp_path, measure_part, str(tmp_path))
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)] == pytest.approx([want, want], rel=1e-6)


def test_a_network_without_batch_normalisation_is_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    _, data = trained_like()
    with pytest.raises(InputError, match="Sequential has none that keeps running averages"):
        nc.measure(plain, data, batch_norm="re-estimate")
    with pytest.raises(InputError, match="batch_norm"):
        nc.measure(plain, data, batch_norm="fresh")  # type: ignore[arg-type]
