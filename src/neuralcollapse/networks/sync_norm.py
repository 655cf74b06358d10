"""Batch normalisation by the statistics of the whole batch, when several processes share it.

PyTorch's own `SyncBatchNorm` does this on CUDA and refuses CPU tensors; `SynchronisedNorm` is the same on a CPU. Means
and variances of the shards are merged about the common mean (Chan, Golub & LeVeque, 1983), so shards of any sizes give
what one process gives to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuralcollapse._errors import InputError

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronised(net: nn.Module, device: str) -> nn.Module:
    """The network with every batch normalisation over all processes; parameters, buffers and their names stay.

    Args:
        net: changed in place.
        device: type of the device it trains on, "cpu" or "cuda".

    Raises:
        InputError: a batch normalisation that does more than normalise, such as timm's with a built-in activation.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        if type(norm) not in _PLAIN:
            raise InputError(
                f"the network normalises with {type(norm).__name__}, whose statistics cannot be shared by processes; "
                "train it with --devices 1"
            )
    if device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-any-return, no-untyped-call]
    for norm in norms:
        norm.__class__ = SynchronisedNorm  # it has no state of its own
    return net


class SynchronisedNorm(_BatchNorm):
    """`BatchNorm1d`, `2d` or `3d` over the batch of all processes; each process must bring an example.

    No `SyncBatchNorm`, which DDP refuses on a CPU.
    """

    waits_for_processes = True
    """In train mode; what measures a network with one process makes it do without."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected examples × channels (× pixels), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), share)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)
        return output  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the examples and pixels of all processes.

    Backward, with n the number of values of a channel over all processes and sums over all of them:
    ∂x = γ / √(σ² + ε) · (∂y - (Σ ∂y + x̂ Σ ∂y x̂) / n). ∂γ and ∂β are this process's part: gradients of parameters are
    added up elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        mean, variance, count = _merged(x)
        stats = torch.float64 if x.dtype == torch.float64 else torch.float32  # of 16-bit input as of float32
        y = F.batch_norm(x, mean.to(stats), variance.to(stats), weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean.to(stats), (variance + eps).rsqrt().to(stats))
        ctx.count = float(count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        normalised = (x.to(mean.dtype) - _channelwise(mean, x)) * _channelwise(scale, x)
        grad = grad.to(mean.dtype)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        sums = torch.stack([grad.sum(dims), (grad * normalised).sum(dims)])
        grad_bias, grad_weight = sums.clone()
        totals = sums.double()
        dist.all_reduce(totals)
        offset, slope = (totals / ctx.count).to(mean.dtype)
        inner = grad - _channelwise(offset, x) - normalised * _channelwise(slope, x)
        if weight is None:
            return (inner * _channelwise(scale, x)).to(x.dtype), None, None, None
        grad_x = (inner * _channelwise(scale * weight, x)).to(x.dtype)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _merged(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel, in float64, and the number of its values, over all processes."""
    dims = [dim for dim in range(x.dim()) if dim != 1]
    work = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(work, dims, correction=0)
    count = torch.full((1, len(mean)), x.numel() / x.shape[1], dtype=torch.float64, device=x.device)
    mine = torch.cat([count, mean[None], variance[None]])
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    counts, means, variances = torch.stack(gathered, dim=1)  # each: processes × channels
    share = counts / counts.sum(0)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), counts[:, 0].sum()


def _channelwise(vector: Tensor, x: Tensor) -> Tensor:
    """A value for each channel, shaped to meet x."""
    return vector.view(1, -1, *[1] * (x.dim() - 2))
