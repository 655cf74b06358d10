"""The network, the optimizer and the batches of a configuration."""

from __future__ import annotations

import torch
from torch import nn

from neuralcollapse.data import Batches, Dataset, ImageData
from neuralcollapse.networks import heads, registry
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.optimizers import OPTIMIZERS

_MEASURING_BATCH = 256
_PADDED = {28: 32}  # the paper pads the MNIST images, so that three halvings come out even


def build_network(config: RunConfig, data: Dataset) -> nn.Module:
    """The configured network, initialised from the current random state."""
    channels = data.train.images.shape[1]
    height, size = (_PADDED.get(side, side) for side in data.train.images.shape[-2:])
    net = registry.build(
        config.model,
        num_classes=config.num_classes,
        in_channels=channels,
        image_size=size,
        width=config.width,
    )
    net = heads.replace(net, config.head, config.temperature, torch.zeros(1, channels, height, size))
    return net.to(memory_format=torch.channels_last) if channels_last_pays(config) else net  # type: ignore[call-overload]


def build_optimizer(config: RunConfig, net: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer, for the parameters of the network that are trained."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return OPTIMIZERS[config.optimizer].make(trained, config.learning_rate, config.momentum, config.weight_decay)


def make_batches(
    images: ImageData, data: Dataset, config: RunConfig, device: torch.device, *, shuffle_seed: int | None
) -> Batches:
    """Batches of training or test images, normalised by the training set's pixels.

    Args:
        images: the half of `data` to go through.
        data: the data set.
        config: the run's configuration.
        device: where the images are kept.
        shuffle_seed: decides the order together with the epoch; None for measuring, in stored order.
    """
    return Batches(
        images,
        data.mean,
        data.std,
        batch_size=max(config.batch_size, _MEASURING_BATCH) if shuffle_seed is None else config.batch_size,
        device=device,
        shuffle_seed=shuffle_seed,
        pad_to=_PADDED.get(images.images.shape[-1]),
        channels_last=channels_last_pays(config),
        dtype=torch.float64 if config.precision == "64" else torch.float32,
    )


def channels_last_pays(config: RunConfig) -> bool:
    """Whether images are stored channels-last, which makes convolutions faster.

    In bf16 on every device, and in float32 on a CPU, where `benchmarks/training.py --precision 32` measures it.
    """
    return config.precision == "bf16" or (config.device == "cpu" and config.precision == "32")
