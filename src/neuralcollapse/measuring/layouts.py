"""Which axis of a module's output holds the features: decided by proof, never by the number of axes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import Tensor, nn

# PyTorch documents these as (n, features, positions …), and those below as (…, features).
_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)


class Layouts:
    """Feature axes of the outputs in a forward pass, by the modules that made them."""

    def __init__(self) -> None:
        # outputs whose axis is known, so that what an activation makes of one has the same
        self._known: list[tuple[weakref.ref[Tensor], int]] = []

    def note(self, module: nn.Module, entered: Tensor | None, left: Tensor) -> int | None:
        """The axis of the features in what a module gave, 1 or −1, or None where nothing proves it."""
        axis = axis_of(module, left)
        if axis is None and _is_elementwise(module):
            axis = next((known for ref, known in reversed(self._known) if ref() is entered), None)
        if axis is not None:
            self._known.append((weakref.ref(left), axis))
        return axis


def axis_of(module: nn.Module, left: Tensor) -> int | None:
    """The axis of the features in an output (n, …) of three or more axes, 1 or −1; None where nothing proves it.

    A convolution, a batch normalisation or a pooling has them on axis 1, a linear layer or a layer normalisation on the
    last. Of a module that holds such ones, that axis is taken whose size is one of their numbers of features, where it
    is one alone; or where all are of one kind, theirs.
    """
    kind = _kind(module)
    if kind is not None:
        return kind
    kinds = {found for each in module.modules() if (found := _kind(each)) is not None}
    widths = {width for each in module.modules() for width in _widths(each)}
    fits = [axis for axis in (1, -1) if left.shape[axis] in widths]
    if len(fits) == 1:
        return fits[0]
    if not fits or len(kinds) != 1:
        return None
    (axis,) = kinds
    # a convolution's map that was flattened to tokens has an axis fewer, and most often was transposed
    spatial = {each.weight.ndim for each in module.modules() if isinstance(each, nn.modules.conv._ConvNd)}
    return axis if axis == -1 or spatial == {left.ndim} else None


def _is_elementwise(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's activations or dropouts, which move no axis."""
    home = type(module).__module__
    return home in ("torch.nn.modules.activation", "torch.nn.modules.dropout") or type(module) is nn.Identity


def batch_second(module: nn.Module) -> bool:
    """Whether it holds attention or a recurrent layer that gives (length, batch, features)."""
    kinds = nn.MultiheadAttention, nn.RNNBase
    return any(isinstance(each, kinds) and not each.batch_first for each in module.modules())


def _kind(module: nn.Module) -> int | None:
    """The axis that a module's own documentation tells, 1 or −1."""
    if isinstance(module, _FIRST):
        return 1
    # subclasses of LayerNorm may move the axes about, as those of ConvNeXt do
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return -1 if len(module.normalized_shape) == 1 else None  # type: ignore[arg-type]
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return None
    return -1 if isinstance(module, _LAST) else None


def _widths(module: nn.Module) -> Iterator[int]:
    """The numbers of features that a module may give."""
    for name in ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim", "embed_dim"):
        width = getattr(module, name, None)
        if isinstance(width, int):
            yield width
    if next(module.children(), None) is None:
        # the scale or bias of a normalisation, which may be a model's own
        yield from (len(each) for each in module.parameters() if each.ndim == 1)
    if isinstance(module, nn.RNNBase):
        yield (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
