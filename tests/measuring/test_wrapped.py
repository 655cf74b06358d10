"""Networks as trainers wrap them: compiled, scripted, spread over processes. The numbers are the network's own."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from helpers.gloo import on_processes
from helpers.wrapped import batches, die, fail, measure_wrapped, network
from torch import nn

import neuralcollapse as nc

DDP = ["ddp", "ddp of compiled"]
FSDP = ["fsdp1", "fsdp1 classifier", "fsdp1 classifier original", "fsdp2", "fsdp2 classifier"]


def assert_close(found: dict[str, float], want: dict[str, float]) -> None:
    assert found.keys() == want.keys()
    for name, value in want.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize(("kinds", "processes", "trained"), [(DDP, 3, True), (FSDP[::2], 2, False), (FSDP, 2, True)])
def test_unequal_shards_give_the_report_of_one_process(
    kinds: list[str], processes: int, trained: bool, tmp_path: Path
) -> None:
    on_processes(processes, tmp_path, measure_wrapped, str(tmp_path), kinds, trained)
    alone = network()
    if trained:
        alone(torch.ones(2, 6))  # which moves the averages of batch normalisation
    want = nc.measure(alone, batches()).numbers()
    for kind in kinds:
        for rank in range(processes):
            for found in json.loads((tmp_path / f"{kind} {rank}.json").read_text()):
                assert_close(found, want)


def compiled_whole() -> nn.Module:
    return torch.compile(network(), backend="eager")  # type: ignore[return-value]


def compiled_in_place() -> nn.Module:
    model = network()
    model.compile(backend="eager")
    return model


def compiled_part() -> nn.Module:
    model = network()
    model[1] = torch.compile(model[1], backend="eager")
    model[2] = torch.compile(model[2], backend="eager")
    return model


def compiled_inside_data_parallel() -> nn.Module:
    return nn.DataParallel(compiled_part())


class CompiledStep(nn.Module):
    """A forward pass that is itself a compiled function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.step = torch.compile(lambda inputs: self.inner(inputs), backend="eager")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.step(inputs)


@pytest.mark.parametrize(
    "make", [compiled_whole, compiled_in_place, compiled_part, compiled_inside_data_parallel, CompiledStep]
)
def test_what_is_compiled_is_measured_after_validation(make: type[nn.Module]) -> None:
    torch._dynamo.reset()
    model = make().eval()
    with torch.no_grad():
        before = [model(inputs) for inputs, _ in batches()]
    modules = list(model.modules())
    assert_close(nc.measure(model, batches()).numbers(), nc.measure(network(), batches()).numbers())
    assert list(model.modules()) == modules
    assert torch._dynamo.eval_frame._stance.stance == "default"
    with torch.no_grad():
        for outputs, (inputs, _) in zip(before, batches(), strict=True):
            assert torch.equal(model(inputs), outputs)


def test_wrappers_are_back_after_an_error() -> None:
    model = compiled_part()
    modules = list(model.modules())
    with pytest.raises(nc.InputError, match="labels in"):
        nc.measure(model, [(torch.ones(2, 6), torch.tensor([0, 7]))])
    assert list(model.modules()) == modules
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused() -> None:
    scripted = torch.jit.trace(network().eval(), torch.ones(2, 6))
    with pytest.raises(nc.InputError, match="got a scripted one, Sequential: measure the module it was made from"):
        nc.measure(scripted, batches())


@pytest.mark.parametrize("model", [3, "network", lambda inputs: inputs])
def test_what_is_no_network_is_refused(model: object) -> None:
    with pytest.raises(nc.InputError, match=r"expected a network, a torch\.nn\.Module, got"):
        nc.measure(model, batches())  # type: ignore[arg-type]


class Slow(nn.Module):
    """A network that lets other threads in between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        barrier = threading.Event()
        barrier.wait(0.002)
        return self.inner(inputs)


def test_threads_measure_one_network_one_after_the_other() -> None:
    model = Slow().train()
    data = {"whole": batches(), "first": batches()[:2], "last": batches()[2:]}
    want = {name: nc.measure(model, part).nc1 for name, part in data.items()}
    for _ in range(3):
        found: dict[str, float] = {}

        def measure(name: str, into: dict[str, float]) -> None:
            into[name] = nc.measure(model, data[name]).nc1

        threads = [threading.Thread(target=measure, args=(name, found)) for name in data]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == want
        assert all(module.training for module in model.modules())


def test_an_error_of_any_type_on_one_process_ends_all(tmp_path: Path) -> None:
    on_processes(2, tmp_path, fail, str(tmp_path))
    mine, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (1, 0))
    for where in ("loader", "network"):
        assert mine[f"InputError {where}"] == other[f"InputError {where}"] == "InputError: process 1: it failed"
        for kind in ("ValueError", "ZeroDivisionError"):
            assert mine[f"{kind} {where}"] == f"{kind}: it failed"
            assert other[f"{kind} {where}"] == f"RuntimeError: process 1: {kind}: it failed"


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    on_processes(2, tmp_path, die, str(tmp_path))
    assert (tmp_path / "0.txt").read_text().startswith("RuntimeError: expected all processes to measure, one has ended")


class Merging(nn.Linear):
    """An adapter of low rank that is merged into the weight in eval mode, and taken out in train mode, as loralib's."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.down, self.up = nn.Parameter(torch.randn(2, width)), nn.Parameter(torch.randn(classes, 2))
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode is self.merged:
            self.weight.data += (-1.0 if mode else 1.0) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.merged else super().forward(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_module_that_does_more_than_set_its_mode_goes_on_training(training: bool, failing: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Merging(8, 3)).train(training)
    weight, inputs = model[2].weight.detach().clone(), torch.randn(30, 6)
    data: list[Any] = [(inputs, torch.arange(30) % 3)]
    if failing:
        with pytest.raises(RuntimeError):
            nc.measure(model, [*data, (inputs[:, :2], torch.arange(30) % 3)])
    else:
        nc.measure(model, data)
    assert torch.equal(model[2].weight, weight), "not even rounded"
    assert model[2].merged is not training and model.training is training
    model(inputs).sum().backward()
    assert (model[2].down.grad is not None) is training
