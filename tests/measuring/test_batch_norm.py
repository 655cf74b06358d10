"""Re-estimated batch-normalisation statistics against averages written out by hand."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.gloo import on_processes
from helpers.normalised import measure_part, measure_synchronised, network, trained_like
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

import neuralcollapse as nc
from neuralcollapse import InputError
from neuralcollapse.measuring.batch_norm import batch_norm_layers, reestimated
from neuralcollapse.measuring.batches import PreparedLoader


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


again = partial(nc.measure, batch_norm="re-estimate")
"""What is measured with statistics made afresh."""


def small_network(norm: nn.Module) -> nn.Sequential:
    """Of five inputs, with a normalisation of eight units."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), norm, nn.ReLU(), nn.Linear(8, 3))


def small_data(sizes: tuple[int, ...] = (20, 20, 20)) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (sum(sizes),), generator=generator)
    inputs = torch.randn(len(labels), 5, generator=generator) + labels[:, None]
    return list(zip(inputs.split(sizes), labels.split(sizes), strict=True))


def test_a_batch_weighs_as_its_labels() -> None:
    """The first axis of what enters the network may be time."""

    class LastStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.norm(x[-1]))
            return result

    net, data = LastStep().eval(), small_data((40, 4))
    steps = [(x.expand(length, *x.shape), y) for (x, y), length in zip(data, (3, 30), strict=True)]
    plain = nn.Sequential(net.norm, net.head).eval()
    assert again(net, steps).nc1 == pytest.approx(again(plain, data).nc1, rel=1e-6)


def test_an_error_in_the_pass_leaves_no_context_behind_and_names_the_batch() -> None:
    class Fails(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 7:
                raise KeyboardInterrupt if self.interrupts else RuntimeError("no")
            return super().forward(x)

    net = small_network(nn.BatchNorm1d(8))
    net[0] = Fails(5, 8)
    loader = PreparedLoader(small_data((20, 7)), lambda batch: batch, partial(torch.autocast, "cpu", torch.bfloat16))
    for interrupts, kind in ((True, KeyboardInterrupt), (False, RuntimeError)):
        net[0].interrupts = interrupts
        with pytest.raises(kind) as caught:
            again(net, loader)
        assert not torch.is_autocast_enabled("cpu")
    assert "raised by Sequential on batch 1; argument 0" in caught.value.__notes__[0]


def test_a_graph_made_before_can_still_be_gone_back_through() -> None:
    net = small_network(nn.BatchNorm1d(8)).eval()
    loss, own = net(small_data()[0][0]).sum(), net[1].running_mean
    again(net, small_data())
    loss.backward()
    assert net[1].running_mean is own


def test_a_network_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net = small_network(nn.BatchNorm1d(8))
    assert again(net, small_data()).nc1 == pytest.approx(again(small_network(nn.BatchNorm1d(8)), small_data()).nc1)


def test_a_layer_whose_class_stays_in_eval_mode_is_frozen() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    frozen = Frozen(8)
    with torch.no_grad():
        frozen.running_mean.fill_(1.0)
        frozen.running_var.fill_(9.0)
    net = small_network(frozen.eval())
    net.append(nn.BatchNorm1d(3)).append(nn.Linear(3, 3))
    assert batch_norm_layers(net.train()) == [net[4]]
    numbers = [again(each, small_data()).nc1 for each in (net.train(), net.eval())]
    assert numbers[0] == numbers[1]
    with pytest.raises(InputError, match="only frozen layers of that kind"):
        again(small_network(frozen), small_data())


class Unusual(nn.BatchNorm1d):
    """As libraries derive them: with children, and with arithmetic on the momentum."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.drop, self.shares = nn.Dropout(0.5), []  # type: ignore[var-annotated]

    def forward(self, x: Tensor) -> Tensor:
        self.shares.append(1 - self.momentum)  # type: ignore[operator]
        normal: Tensor = self.drop(super().forward(x))
        return normal


def turned_off(layer: nn.BatchNorm1d) -> nn.BatchNorm1d:
    layer.track_running_stats = False
    return layer


@pytest.mark.parametrize("norm", [Unusual(8), turned_off(nn.BatchNorm1d(8))], ids=["with children", "not tracking"])
def test_unusual_layers_give_what_usual_ones_do(norm: nn.Module) -> None:
    want = again(small_network(nn.BatchNorm1d(8)), small_data()).nc1
    net = small_network(norm)
    assert again(net, small_data()).nc1 == pytest.approx(want, rel=1e-6)
    assert norm.track_running_stats is isinstance(norm, Unusual) and norm.momentum == 0.1


class ByItself(nn.BatchNorm1d):
    """Normalises, and keeps no averages."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0)


class Around(nn.Module):
    """Uses what a layer holds, and does not run it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.norm.running_mean  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("norm", "why"),
    [
        (ByItself(8), r"'1' \(ByItself\) does not"),
        (Around(), "it ran none of '1.norm'"),
        (nn.LazyBatchNorm1d(), "the layer '1' has no sizes yet"),
        (nn.InstanceNorm1d(8, track_running_stats=True), "none that keeps running averages"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_whose_statistics_cannot_be_made_are_refused(norm: nn.Module, why: str) -> None:
    with pytest.raises(InputError, match=why):
        again(small_network(norm), small_data())


class Activated(nn.BatchNorm1d):
    """Normalises and rectifies, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class SynchronisedAndActivated(nn.SyncBatchNorm):
    """What timm makes of it for several processes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_a_layer_that_synchronises_still_does_what_it_does_after_it() -> None:
    """Later layers' statistics are of what it gives in training, not of the normalised values alone."""
    found, waiting = [], nn.SyncBatchNorm.forward
    for kind in (Activated, SynchronisedAndActivated):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), kind(8), nn.Linear(8, 8), kind(8), nn.Linear(8, 3))
        found.append(again(net, small_data()).nc1)
        assert nn.SyncBatchNorm.forward is waiting
    assert found[0] == pytest.approx(found[1], rel=1e-6)


class PastHooks(nn.Module):
    """Calls a layer's forward by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm.forward(x)


def test_a_layer_that_runs_past_its_hooks_is_refused() -> None:
    """Not passed over, while the others are re-estimated."""
    net = small_network(nn.Sequential(nn.BatchNorm1d(8), PastHooks()))
    with pytest.raises(InputError, match=r"'1\.1\.norm' to be called as a module"):
        again(net, small_data())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:.*torch.jit")
def test_a_scripted_part_with_batch_normalisation_is_refused() -> None:
    net = small_network(nn.BatchNorm1d(8))
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(5), nn.ReLU()))
    with pytest.raises(InputError, match=r"'0\.0' is scripted"):
        again(nn.Sequential(scripted, net), small_data())
    harmless = torch.jit.script(nn.Sequential(nn.ReLU()))
    again(nn.Sequential(harmless, net), small_data())


def test_batches_of_one_image_count_where_a_channel_has_several_values() -> None:
    """As in training: PyTorch refuses one value of a channel, not one example."""
    torch.manual_seed(0)
    convolutional = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()
    data = batches((1, 1, 1, 1))
    with torch.no_grad():
        means = torch.stack([convolutional[0](batch).mean(dim=(0, 2, 3)) for batch in data])
    with reestimated(convolutional, batch_norm_layers(convolutional), forwards(convolutional, data)):
        torch.testing.assert_close(convolutional[1].running_mean, means.mean(dim=0), rtol=1e-5, atol=1e-6)
    net = network().eval()  # its second layer normalises one value of each example
    data = batches((7, 1, 7))
    with reestimated(net, batch_norm_layers(net), forwards(net, [data[0], data[2]])):
        want = net[1].running_mean, net[5].running_mean
    with reestimated(net, batch_norm_layers(net), forwards(net, data)):
        assert torch.equal(net[1].running_mean, want[0]) and torch.equal(net[5].running_mean, want[1])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:.*torch.jit")
def test_what_is_no_network_is_refused_as_without() -> None:
    for wrong in ("net", nn.Linear, torch.jit.script(small_network(nn.BatchNorm1d(8)))):
        with pytest.raises(InputError, match=r"expected a (network|module)"):
            again(wrong, small_data())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one batch, got none"):
        again(small_network(nn.BatchNorm1d(8)), [])


def test_a_wrapper_in_train_mode_freezes_nothing() -> None:
    net = small_network(nn.BatchNorm1d(8))
    want, wrapped = again(net, small_data()).nc1, nn.DataParallel(net)
    net.eval()
    assert wrapped.training and again(wrapped, small_data()).nc1 == want


def test_the_pass_is_part_of_the_progress() -> None:
    told: list[float] = []
    again(small_network(nn.BatchNorm1d(8)), small_data(), progress=told.append)
    assert told == pytest.approx(
        [1 / 9, 2 / 9, 3 / 9, 4 / 9, 5 / 9, 6 / 9, 1]
    )  # decisions on all that was kept, at once


class Once(IterableDataset):  # type: ignore[type-arg]
    """Examples of one iterator: what a pass has taken no later one gets; ``most`` a pass, or all."""

    def __init__(self, data: list[tuple[Tensor, Tensor]], most: int | None = None) -> None:
        self._most = most
        self._left = iter([pair for inputs, labels in data for pair in zip(inputs, labels, strict=True)])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.islice(self._left, self._most)


class Again(IterableDataset):  # type: ignore[type-arg]
    """The same examples in every pass, divided among workers."""

    def __init__(self, data: list[tuple[Tensor, Tensor]]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        pairs = [pair for inputs, labels in self._data for pair in zip(inputs, labels, strict=True)]
        share = len(pairs) if worker is None else len(pairs) // worker.num_workers
        first = 0 if worker is None else worker.id * share
        yield from pairs[first : first + share]


@pytest.mark.parametrize("measure", [nc.measure, nc.measure_layers])
@pytest.mark.parametrize("options", [{"batch_norm": "re-estimate"}, {"min_count": 1}])
@pytest.mark.parametrize(("most", "left"), [(None, 0), (50, 10)])
def test_batches_that_come_only_once_are_refused(
    most: int | None, left: int, options: dict[str, Any], measure: Callable[..., object]
) -> None:
    """A pass before has used them up, or left a rest whose numbers would be others."""
    net, data = trained_like()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loader = DataLoader(Once(data, most), batch_size=10)
    message = rf"same examples, got {most or 60} in one and {left} in the next: give a loader that can be gone"
    with pytest.raises(InputError, match=message):
        measure(net, loader, **options)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_batches_used_up_before_are_told_of() -> None:
    net, data = trained_like()
    monitor = nc.Monitor(net, DataLoader(Once(data), batch_size=10))
    assert monitor(1) is not None
    message = "at least one batch, got none: if it gives its batches only once, give a list of batches"
    with pytest.raises(InputError, match=message):
        monitor(2)
    for options in ({}, {"batch_norm": "re-estimate"}):
        with pytest.raises(InputError, match=r"at least one batch, got none$"):
            nc.measure(net, DataLoader(TensorDataset(*data[0]), batch_size=64, drop_last=True), **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_begins_anew_is_measured(workers: int) -> None:
    net, data = trained_like()
    kinds = {"persistent_workers": True} if workers else {}
    loader = DataLoader(Again(data), batch_size=10, num_workers=workers, **kinds)
    want = reference_report(net, list(loader))
    for options in ({}, {"min_count": 1}, {"memory_budget": 0}):
        report = again(net, loader, **options)
        assert report.num_examples == 60 and report.nc1 == pytest.approx(want.nc1, rel=1e-4)


def test_statistics_of_other_examples_are_told_of() -> None:
    """Of a loader that leaves out another last batch each time, or goes on where it ended; not of one that shuffles."""
    net, data = trained_like()
    inputs, labels = (torch.cat(each) for each in zip(*data, strict=True))
    others = "the loader samples: statistics were re-estimated from other examples than those measured"
    torch.manual_seed(1)
    whole = DataLoader(TensorDataset(inputs, labels), batch_size=10, shuffle=True)
    assert others not in again(net, whole).notes
    most = DataLoader(TensorDataset(inputs, labels), batch_size=25, shuffle=True, drop_last=True)
    report = again(net, most)
    assert others in report.notes and report.num_examples == 50
    assert others in again(net, DataLoader(Once(data, 30), batch_size=10)).notes


def in_class_order(data: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    inputs, labels = (torch.cat(each) for each in zip(*data, strict=True))
    order = labels.argsort(stable=True)
    return list(zip(inputs[order].split(20), labels[order].split(20), strict=True))


def test_batches_of_few_classes_are_told_of() -> None:
    """Their statistics are not those of training, and give other numbers."""
    net, data = small_network(nn.BatchNorm1d(8)), small_data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = again(net, data)
    with pytest.warns(UserWarning, match=r"a batch of the loader holds 1\.\d+ classes in the mean, .* hold (2\.99|3):"):
        ordered = again(net, in_class_order(data))
    assert any("shuffle the loader" in note for note in ordered.notes) and len(mixed.notes) == 1
    assert abs(ordered.nc1 / mixed.nc1 - 1) > 0.01
    assert nc.measure(net, in_class_order(data)).nc1 == pytest.approx(nc.measure(net, data).nc1, rel=1e-5)


def test_labels_of_pixels_say_nothing_about_how_images_were_drawn() -> None:
    """Neighbouring pixels have one class, also in a batch drawn at random."""
    torch.manual_seed(0)
    classes = torch.stack([torch.randperm(6)[:2] for _ in range(40)])
    labels = classes[:, :, None].repeat_interleave(8, dim=2).reshape(40, 4, 4)
    data = [(torch.randn(2, 3, 4, 4), each) for each in labels.split(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = again(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)), data)
    assert len(report.notes) >= 1 and not any("shuffle" in note for note in report.notes)


def test_layers_that_synchronise_need_no_other_process(tmp_path: Path) -> None:
    """Two processes, of which one has more batches; then one of them alone."""
    on_processes(2, tmp_path, measure_synchronised, str(tmp_path))
    torch.manual_seed(0)
    net, data = trained_like()
    want = {"together": again(net, data).nc1, "alone": again(net, data[:2]).nc1}
    for rank in (0, 1):
        got: dict[str, Any] = torch.load(tmp_path / f"{rank}.pt")
        assert got == pytest.approx({name: want[name] for name in got}, rel=1e-6) and ("alone" in got) == (rank == 0)


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
