"""The network, the optimizer and the batches of a configuration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralcollapse.data import Batches, Dataset, ImageData
from neuralcollapse.measuring.classifier import find_classifier
from neuralcollapse.networks import heads, registry
from neuralcollapse.networks.heads import HEADS
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.optimizers import OPTIMIZERS

_MEASURING_BATCH = 256
_PADDED = {28: 32}  # the paper pads the MNIST images, so that three halvings come out even


def build_network(config: RunConfig, data: Dataset) -> nn.Module:
    """The configured network, initialised from the current random state."""
    channels, size = data.train.images.shape[1], _padded(data.train.images, config)
    net = registry.build(
        config.model, num_classes=config.num_classes, in_channels=channels, image_size=size, width=config.width
    )
    net = heads.replace(net, config.head, config.temperature, torch.zeros(1, channels, *size))
    return net.to(memory_format=torch.channels_last) if channels_last_pays(config) else net  # type: ignore[call-overload]


def find_last_layer(config: RunConfig, net: nn.Module, data: Dataset) -> nn.Linear | None:
    """The network's last layer, where training treats it in a way of its own; None where it does not."""
    follows = HEADS[config.head].follow is not None
    if config.classifier_decay is None and config.bias_norm_decay is None and not config.feature_decay and not follows:
        return None
    images = data.train.images
    return find_classifier(net, lambda: net(torch.zeros(1, images.shape[1], *_padded(images, config))))


def build_optimizer(config: RunConfig, net: nn.Module, last: nn.Linear | None = None) -> torch.optim.Optimizer:
    """The configured optimizer, for the parameters of the network that are trained.

    They come in one group for each weight decay: that of the last layer, W and b; that of the biases and normalisation
    elsewhere, which are the parameters of at most one dimension; and that of all others.

    Args:
        config: the run's configuration.
        net: the network.
        last: its last layer, from `find_last_layer`.
    """
    own = set() if last is None else set(last.parameters())
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in net.parameters():
        decay = config.bias_norm_decay if parameter.ndim <= 1 else None
        decay = config.classifier_decay if parameter in own else decay
        if parameter.requires_grad:
            groups.setdefault(config.weight_decay if decay is None else decay, []).append(parameter)
    made = [{"params": trained, "weight_decay": decay} for decay, trained in groups.items()]
    return OPTIMIZERS[config.optimizer].make(made, config.learning_rate, config.momentum)


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
        pad_to=_padded(images.images, config),
        channels_last=channels_last_pays(config),
        dtype=torch.float64 if config.precision == "64" else torch.float32,
    )


def _padded(images: Tensor, config: RunConfig) -> tuple[int, int]:
    """Height and width to which images are padded, of smaller images as much smaller."""
    whole = (side * config.downsample for side in images.shape[-2:])
    height, width = (_PADDED.get(side, side) // config.downsample for side in whole)
    return height, width


def channels_last_pays(config: RunConfig) -> bool:
    """Whether images are stored channels-last, which makes convolutions faster.

    In bf16 on every device, and in float32 on a CPU, where `benchmarks/training.py --precision 32` measures it.
    """
    return config.precision == "bf16" or (config.device == "cpu" and config.precision == "32")
