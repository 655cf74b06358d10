"""Batch normalisation over processes, against PyTorch's on the whole batch in one process."""

from __future__ import annotations

import pytest
import torch
from helpers.gloo import on_processes
from helpers.norms import CASES, SHORT, SPLITS, Passed, batches, normalise_shards, passed, seeded
from torch import nn

import neuralcollapse as nc
from neuralcollapse.networks import registry as models
from neuralcollapse.networks.sync_norm import SynchronisedNorm, synchronised


@pytest.fixture(scope="module", params=SPLITS)
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Passed]]]:
    """What each process found."""
    sizes, folder = SPLITS[request.param], tmp_path_factory.mktemp("shards")
    on_processes(len(sizes), folder, normalise_shards, str(folder), sizes)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(len(sizes))]


@pytest.mark.parametrize("case", CASES)
def test_shards_are_normalised_as_the_whole_batch(case: str, shards: list[dict[str, list[Passed]]]) -> None:
    make, shape = CASES[case]
    norm = seeded(make())
    for step, (x, grad) in enumerate(batches(shape)):
        for name, expected in passed(norm, x, grad).items():
            parts = [found[case][step][name] for found in shards]
            if name in ("y", "x.grad"):
                parts = [torch.cat(parts)]
            elif name.endswith(".grad"):  # each process has its part of the sum
                parts = [torch.stack(parts).sum(0)]
            for part in parts:
                torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)
    if case != "no running statistics":
        expected = norm.eval()(torch.ones(1, *shape, dtype=torch.float64))
        for found in shards:
            torch.testing.assert_close(found[case][-1]["evaluated"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", SHORT)
def test_short_formats_and_their_memory_order_are_kept(
    dtype: torch.dtype, shards: list[dict[str, list[Passed]]]
) -> None:
    """Parameters in float32, as autocast leaves them."""
    whole = passed(nn.BatchNorm2d(3), *(tensor.to(dtype) for tensor in batches((3, 4, 5))[0]))
    for name in ("y", "x.grad"):
        joined = torch.cat([found[str(dtype)][0][name] for found in shards])
        assert joined.dtype == dtype and joined.is_contiguous(memory_format=torch.channels_last)
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(joined, whole[name], rtol=4 * rounding, atol=10 * rounding)


@pytest.mark.parametrize("name", ["resnet18", "mlp"])
def test_checkpoints_move_between_one_process_and_several(name: str) -> None:
    one, several = (models.build(name, num_classes=3, in_channels=1, image_size=8, width=0.1) for _ in range(2))
    parameters = list(several.parameters())
    several = synchronised(several, "cpu")
    assert all(a is b for a, b in zip(parameters, several.parameters(), strict=True))
    several.load_state_dict(one.state_dict())
    one.load_state_dict(several.state_dict())
    kinds = {type(module) for module in several.modules()}
    assert SynchronisedNorm in kinds and not kinds & {nn.BatchNorm1d, nn.BatchNorm2d}
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(several.eval()(images), one.eval()(images), rtol=0, atol=0)


def test_a_norm_that_does_more_is_refused() -> None:
    class NormWithActivation(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return torch.relu(super().forward(input))

    with pytest.raises(nc.InputError, match=r"NormWithActivation.* --devices 1"):
        synchronised(nn.Sequential(NormWithActivation(3)), "cpu")
