"""Adversarial robustness: the smallest change of an image that changes the network's decision, by DeepFool.

For the network's own decision k̂(x) = argmax_k f_k(x), right or wrong, DeepFool (Moosavi-Dezfooli, Fawzi & Frossard,
2016) makes each f_k − f_k̂ linear at the perturbed image, and goes to the nearest of those boundaries,

    k = argmin_k |f_k − f_k̂| / ‖∇(f_k − f_k̂)‖₂,    r ← r + |f_k − f_k̂| / ‖∇(f_k − f_k̂)‖₂² · ∇(f_k − f_k̂),

until x + (1 + η) r is decided otherwise. Reported is r, without the overshoot η: the distance to the boundary, exact
for a linear network. As in that paper nothing is clipped, so x + r may leave the range of pixels: the boundary is the
network's, whatever pixels a file can hold. x is what the network is given, with its border, in pixels of 0 … 1 before
normalisation. The measure is the mean of ‖r(x)‖₂ / ‖x‖₂ over test images (Papyan, Han & Donoho, 2020, Fig. 8).

The measure has a limit: DeepFool trusts the gradient. Where a collapsed network is flat around its examples, the first
step goes far beyond the boundary, and ‖r‖ is a step's length more than a distance. It bounds the smallest perturbation
from above: the demo on digits ends at a median of 15, where DDN (Rony et al., 2019), 200 steps, finds one of 0.12.

Why not foolbox (3.3.4): it lengthens every step by 1e-4, which near a boundary is several per cent of a distance in
such pixels, leaves gradients in the network's parameters, and goes forward again for each class, at four times the
cost. The tests compare the two at a scale of pixels where 1e-4 is nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralcollapse._errors import InputError
from neuralcollapse._linalg import full_precision
from neuralcollapse.data.dataset import ImageData
from neuralcollapse.measuring.preparation import evaluation

# as in the code of DeepFool's authors
STEPS = 50
OVERSHOOT = 0.02
CANDIDATES = 10
"""Classes considered, the most likely ones; with up to ten classes that is all."""


def robustness_subset(test: ImageData, number: int) -> ImageData:
    """The test images to measure on, the same at every epoch and in every run: the first of each class.

    As many of each class as of the others, one more of the first classes where that does not come out even; a class
    that has too few leaves its share to the others. Black images are passed over: their ‖x‖ is zero. Test images,
    because the distance is asked for where the network was not fitted.

    Args:
        test: the held-out half.
        number: how many in all.

    Raises:
        InputError: there are fewer.
    """
    usable = test.images.flatten(1).any(dim=1).nonzero().flatten()
    if number > len(usable):
        most = f"{len(usable)}, the test images that are not black"
        raise InputError(f"expected --robustness-examples of at most {most}, got {number}")
    labels = test.labels[usable]
    counts = labels.bincount()
    order = labels.argsort(stable=True)
    rank = torch.empty_like(labels)  # of each image within its class
    rank[order] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    chosen = usable[(rank * len(counts) + labels).argsort()[:number]].sort().values
    return ImageData(test.images[chosen], test.labels[chosen])


def relative_perturbations(
    net: nn.Module, images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], *, batch_size: int = 128
) -> Tensor:
    """‖r(x)‖₂ / ‖x‖₂ of each image; in eval mode and float32, without drawing random numbers.

    Args:
        net: logits (n, c) of normalised images.
        images: (n, channels, height, width), uint8, or floating in 0 … 1; where the network is.
        mean, std: of each channel, by which the network wants images normalised.
        batch_size: images attacked at a time; needs the memory of a training step on as many.

    Returns:
        (n,) float64 on the CPU, NaN where no perturbation was found.

    Raises:
        InputError: images of another shape or range, a black image, or logits of fewer than two classes.
    """
    pixels = _pixels(images, len(mean))
    centre, scale = (pixels.new_tensor(each)[:, None, None] for each in (mean, std))
    ratios = []
    with evaluation(net), full_precision(pixels.device):
        for batch in torch.split(pixels, batch_size):
            perturbation, fooled = deepfool(lambda x: net((x - centre) / scale), batch)
            ratio = perturbation.flatten(1).norm(dim=1) / batch.flatten(1).norm(dim=1)
            ratios.append(ratio.masked_fill(~fooled, torch.nan).cpu().double())
    return torch.cat(ratios)


def summarize(ratios: Tensor) -> dict[str, float]:
    """The history's columns: mean and median where a perturbation was found, and the share where none was.

    None is found where the network does not answer to the image, or 50 steps go in circles. Such an image has no
    distance: it is in neither mean nor median, which are NaN when there is no other.
    """
    return {
        "robustness": float(ratios.nanmean()),
        "robustness.median": float(ratios.nanquantile(0.5)),
        "robustness.failed": float(ratios.isnan().double().mean()),
    }


def deepfool(logits: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """DeepFool's smallest perturbation in L2, of a batch at once; nothing is clipped.

    Args:
        logits: of images, (n, c); those of one image must not depend on the others.
        images: (n, ...), floating.

    Returns:
        r, of the images' shape, without the overshoot; and for each image whether x + (1 + η) r is decided otherwise.
    """
    with torch.no_grad():
        classes = _logits(logits, images).argsort(dim=1, descending=True, stable=True)[:, :CANDIDATES]
    perturbation = torch.zeros_like(images)
    fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    going = torch.arange(len(images), device=images.device)
    perturbed = images
    for _ in range(STEPS):
        if not len(going):
            break
        step, moved = _step(logits, perturbed, classes[going])
        perturbation[going] += step
        perturbed = images[going] + (1 + OVERSHOOT) * perturbation[going]
        with torch.no_grad():
            now = _logits(logits, perturbed)
        fooled[going] = (now.argmax(dim=1) != classes[going, 0]) & now.isfinite().all(dim=1)
        left = moved & ~fooled[going]
        going, perturbed = going[left], perturbed[left]
    return perturbation, fooled


def _step(logits: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The step to the nearest boundary of the linearised logits; zero, and False, where no gradient leads to one."""
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        values = logits(x).gather(1, classes)
        differences = values[:, 1:] - values[:, :1]
        last = differences.shape[1] - 1
        gradients = torch.stack(
            [torch.autograd.grad(differences[:, k].sum(), x, retain_graph=k < last)[0] for k in range(last + 1)], dim=1
        )
    norms = gradients.flatten(2).norm(dim=2)
    distances = (differences.detach().abs() / norms).nan_to_num(nan=torch.inf)
    distance, nearest = distances.min(dim=1)
    rows = torch.arange(len(images), device=images.device)
    moved = distance.isfinite()
    length = torch.where(moved, distance / norms[rows, nearest], 0.0)
    return length.reshape(-1, *[1] * (images.ndim - 1)) * gradients[rows, nearest], moved


def _logits(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    values = logits(images)
    if values.ndim != 2 or values.shape[1] < 2:
        raise InputError(f"expected logits of at least two classes, shape (n, c), got {tuple(values.shape)}")
    return values


def _pixels(images: Tensor, channels: int) -> Tensor:
    """The images as floating pixels in 0 … 1."""
    if images.ndim != 4 or images.shape[1] != channels or not len(images):
        wanted = f"shape (n, {channels}, height, width), n at least 1"
        raise InputError(f"expected images of {wanted}, got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if not images.is_floating_point():
        raise InputError(f"expected images as uint8 or floating, got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"expected pixels in 0 … 1, before normalisation, got {low:g} to {high:g}")
    black = ~images.flatten(1).any(dim=1)
    if bool(black.any()):
        first = int(black.nonzero()[0])
        raise InputError(f"expected no black image, because ‖x‖ is then zero, got image {first}; leave it out")
    return images
