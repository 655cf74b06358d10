"""Which layer is the classifier: found by comparing what layers give with what the network returns, or named."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.head import ITSELF, WAYS_OUT, Head, classes_last, of_relation
from neuralcollapse.measuring.hooks import clean_names, first_tensor, require_watchable, version
from neuralcollapse.measuring.relations import (
    DIRECT,
    Relation,
    Returned,
    Weights,
    coarseness,
    exactly,
    is_pointwise,
    relate,
    returned,
    weights_of,
)

# What layers gave is kept for comparing until the forward pass ends: the last ones, up to this many bytes.
_MOST_BYTES = 512 << 20


@dataclass
class _Seen:
    """One call of one module: what it was given and what it gave."""

    name: str
    module: nn.Module
    call: int
    entered: Tensor
    left: Tensor
    channels_first: bool
    versions: tuple[int, int]

    @property
    def features(self) -> Tensor:
        """(…, p)."""
        return classes_last(self.entered, self.channels_first)

    @property
    def logits(self) -> Tensor:
        """(…, C)."""
        return classes_last(self.left, self.channels_first)

    @property
    def overwritten(self) -> bool:
        """Whether the network has changed what it was given or gave since, so that nothing can be said."""
        return self.versions != (version(self.entered), version(self.left))

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.entered, self.left))

    def __str__(self) -> str:
        shape = f"{self.features.shape[-1]} → {self.logits.shape[-1]}"
        return f"{self.name!r} ({type(self.module).__name__}, {shape})"


class Search:
    """Watches one forward pass, and says which layer is the classifier.

    Args:
        model: the network.
        only: the layer that was named, to be watched alone.
    """

    def __init__(self, model: nn.Module, only: str | nn.Module | None = None) -> None:
        require_watchable(model)
        self._model = model
        self._modules = clean_names(model)
        self._only = None if only is None else self._named(only)
        self._seen: deque[_Seen] = deque()
        self._open: dict[nn.Module, list[Tensor | None]] = {}
        self._calls: Counter[nn.Module] = Counter()

    def _named(self, layer: str | nn.Module) -> str:
        name = place_of(self._modules, layer, "layer")
        if not _has_matrix(self._modules[name], self._model):
            kind = type(self._modules[name]).__name__
            raise InputError(f"expected a layer with a weight matrix, such as an nn.Linear, got {name!r}, {kind}")
        return name

    @contextmanager
    def placed(self) -> Iterator[Search]:
        """With hooks on each module that may be the classifier."""
        names = {self._modules[self._only]: self._only} if self._only is not None else {}
        if self._only is None:
            names = {
                module: name for name, module in reversed(self._modules.items()) if _has_matrix(module, self._model)
            }
        # a loader may run the network too: only the last pass counts
        handles: list[Any] = [self._model.register_forward_pre_hook(self.begin)]
        try:
            for module, name in names.items():
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                handles.append(module.register_forward_hook(self._leaving(name or ITSELF)))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, *_: Any) -> None:
        """A forward pass begins; what others gave is forgotten."""
        self._seen.clear()
        self._calls.clear()
        self._open.clear()

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered = first_tensor((arguments, named))
        if entered is not None:
            entered = entered.detach()
            # what is small is copied; of what is large it is noticed where the network overwrites it
            if self._only is not None or entered.ndim == 2 or entered.shape[2:].numel() == 1 or entered.is_inference():
                entered = entered.clone()
        self._open.setdefault(module, []).append(entered)

    def _leaving(self, name: str) -> Any:
        def leave(module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
            entered, left = self._open[module].pop(), first_tensor(output)
            call, self._calls[module] = self._calls[module], self._calls[module] + 1
            for each in (entered, left):
                if each is None or not each.is_floating_point() or each.ndim < 2:
                    return
            assert entered is not None and left is not None
            left = left.detach()
            if left.ndim == 2 or left.is_inference():
                left = left.clone()
            first = is_pointwise(module) or (
                not isinstance(module, nn.Linear) and entered.ndim > 2 and entered.shape[2:].numel() == 1
            )
            seen = _Seen(name, module, call, entered, left, first, (version(entered), version(left)))
            if seen.features.shape[:-1] == seen.logits.shape[:-1]:
                self._seen.append(seen)
            while len(self._seen) > 1 and sum(each.bytes for each in self._seen) > _MOST_BYTES:
                self._seen.popleft()

        return leave

    def settle(self, output: Any, labels: Tensor | None) -> tuple[Head, Tensor, Tensor]:
        """The classifier of the pass just made, what entered it and what it gave.

        Args:
            output: what the network returned; labels: of the batch, where there are any.

        Raises:
            InputError: none, or more than one that it may be.
        """
        outputs = returned(output)
        if self._only is not None:
            return self._of_named(outputs)
        if labels is not None and (not labels.numel() or labels.is_floating_point() or labels.is_complex()):
            labels = None  # labels that tell nothing, and are refused later
        return self._found(_plausible(outputs, labels), labels)

    def _of_named(self, outputs: list[Returned]) -> tuple[Head, Tensor, Tensor]:
        calls = [each for each in self._seen if not each.overwritten]
        if not self._calls:
            raise InputError(f"expected the forward pass to reach the layer {self._only!r}, it did not")
        if not calls:
            raise InputError(
                f"expected the layer {self._only!r} to give a row of logits for each row of features, it did not: "
                "name the module that gives the features with features="
            )
        pairs = [
            (each, target, found)
            for each in calls
            for target in outputs
            if (found := relate(each.logits, target.tensor))
        ]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: not exactly(pair[0].logits, pair[1].tensor, pair[2]))
        seen, target, relation = pairs[0] if pairs else (calls[-1], None, None)
        weights = self._weights(seen)
        if weights is None:
            raise InputError(
                f"expected a layer whose output is W h + b of its input h, {seen} is not one: name the module that "
                "gives the features with features=, and give weight= and bias= where there is a classifier"
            )
        notes = [] if pairs else [f"the output of {seen.name!r} is not what the network returns"]
        return self._head(seen, weights, target, relation, notes)

    def _found(self, outputs: list[Returned], labels: Tensor | None) -> tuple[Head, Tensor, Tensor]:
        if not outputs:
            raise InputError(
                f"expected {type(self._model).__name__} to return floating logits with an axis of classes, it returned "
                f"none: {WAYS_OUT}"
            )
        # a plain layer before the modules that hold it, and the last before others; of the holders the innermost
        order = [each for each in reversed(self._seen) if _is_plain(each.module)]
        order += [each for each in self._seen if not _is_plain(each.module)]
        matches: dict[str, list[tuple[_Seen, Relation]]] = {}
        exact: dict[str, list[tuple[_Seen, Relation]]] = {}
        for target in () if outputs[0].tensor.is_meta else outputs:
            matches[target.name] = [
                (each, found)
                for each in order
                if not each.overwritten and (found := relate(each.logits, target.tensor)) is not None
            ]
            near = matches[target.name]
            # what gives the very numbers comes before what only comes near
            exact[target.name] = [
                pair for pair in near if len(near) == 1 or exactly(pair[0].logits, target.tensor, pair[1])
            ]
            matches[target.name] = exact[target.name] + [
                pair for pair in near if not any(pair is each for each in exact[target.name])
            ]
        if outputs[0].tensor.is_meta:
            return self._by_shape(outputs[0])
        target, by_labels = self._target(
            outputs, matches, {name: exact[name] or found for name, found in matches.items()}, labels
        )
        plain = {seen.module for seen, _ in matches[target.name] if _is_plain(seen.module)}
        if len(plain) > 1 and not bool(target.tensor.any()):
            raise self._none("returns, which is zero as of a classifier that starts at zero")
        others = [matches[each.name][0][0] for each in outputs if each is not target and matches[each.name]]
        notes = [f"the network also returns the output of {each}" for each in others if _is_plain(each.module)]
        certain = len(exact[target.name])
        for pairs in (matches[target.name][:certain], matches[target.name][certain:]):
            several = _different([seen for seen, _ in pairs])
            if len(several) > 1:
                raise self._none(f"returns as {target.name!r}, and not several whose outputs are alike", several)
            for seen, relation in sorted(pairs, key=lambda pair: pair[1] != DIRECT):
                weights = self._weights(seen)
                if weights is not None:
                    head, entered, left = self._head(seen, weights, target, relation, notes)
                    return replace(head, by_labels=by_labels), entered, left
        seen = matches[target.name][0][0]
        raise InputError(
            f"expected a classifier whose logits are W h + b of its input h, {seen}, which gives what the network "
            f"returns, is not one: {WAYS_OUT}"
        )

    def _by_shape(self, target: Returned) -> tuple[Head, Tensor, Tensor]:
        """In a network without memory, where there are no numbers to compare: the last linear layer of that shape."""
        for seen in reversed(self._seen):
            if isinstance(seen.module, nn.Linear) and seen.left.shape == target.tensor.shape:
                weights = Weights(seen.module.weight, seen.module.bias)
                return Head(seen.name, seen.name, call=seen.call, weights=weights), seen.entered, seen.left
        raise self._none("returns, by shape")

    def _target(
        self,
        outputs: list[Returned],
        matches: dict[str, list[tuple[_Seen, Relation]]],
        best: dict[str, list[tuple[_Seen, Relation]]],
        labels: Tensor | None,
    ) -> tuple[Returned, bool]:
        """Which of the tensors that the network returns are its logits, and whether the labels told.

        Args:
            best: those of ``matches`` that give the very numbers, where there are any.
        """
        target, by_labels = outputs[0], False
        if len(outputs) > 1:
            names = ", ".join(each.name for each in outputs)
            top = None if labels is None else int(labels.long().max()) + 1
            exact = [] if labels is None else [each for each in outputs if _classes(each, labels) == top]
            # what enters the layer of another is no head of its own
            inside = {
                each.name
                for each in outputs
                for other in outputs
                if other is not each and best[other.name] and _same(each.tensor, best[other.name][0][0].features)
            }
            heads = [each for each in outputs if best[each.name] and each.name not in inside]
            modules = [{seen.module for seen, _ in best[each.name]} for each in heads]
            several = any(modules[0].isdisjoint(each) for each in modules[1:])
            if len(exact) == 1:
                (target,), by_labels = exact, several
            elif several:
                found = [best[each.name][0][0] for each in heads]
                raise self._none(f"returns as logits, which of {names} they are is not told", found)
            elif heads:
                target = heads[0]
                if not {each.name for each in outputs} <= inside | {each.name for each in heads}:
                    raise self._none(f"returns {names}, and which are logits is not told")
            else:
                raise self._none(f"returns among {names}")
        if not matches[target.name]:
            raise self._none(f"returns as {target.name!r}")
        return target, by_labels

    def _none(self, what: str, several: list[_Seen] | None = None) -> InputError:
        """Found none, or several layers, which are listed."""
        if several:
            return InputError(
                f"expected one layer whose output is what {type(self._model).__name__} {what}, found several: "
                f"{', '.join(dict.fromkeys(map(str, several)))}; {WAYS_OUT}"
            )
        linear = [each for each in self._seen if _is_plain(each.module)]
        ran = ", ".join(dict.fromkeys(str(each) for each in (linear or list(self._seen))[-4:]))
        changed = [each.name for each in self._seen if each.overwritten]
        last = f"the last linear layers to run were {ran}" if ran else "no nn.Linear ran"
        also = f"; what {changed[-1]!r} was given or gave is overwritten by the network" if changed else ""
        return InputError(
            f"expected a layer whose output is what {type(self._model).__name__} {what}, found none or several; "
            f"{last}{also}: {WAYS_OUT}"
        )

    def _weights(self, seen: _Seen) -> Weights | None:
        features, logits = (each.reshape(-1, each.shape[-1]) for each in (seen.features, seen.logits))
        return weights_of(seen.module, features, logits, seen.entered)

    def _head(
        self, seen: _Seen, weights: Weights, target: Returned | None, relation: Relation | None, notes: list[str]
    ) -> tuple[Head, Tensor, Tensor]:
        if weights.read_off and not weights.unit:
            text = f"{seen.name!r} is no plain linear layer: its effective weight and bias were read off its outputs"
            notes = [text, *notes]
        place = "" if seen.name == ITSELF else seen.name
        error, first = coarseness(seen.left, convolved=weights.convolved), seen.channels_first
        head = Head(seen.name, place, call=seen.call, error=error, channels_first=first, notes=tuple(notes))
        name = "" if target is None else target.name
        return of_relation(head, weights, relation, name), seen.entered, seen.left


def _same(tensor: Tensor, features: Tensor) -> bool:
    return tensor.numel() == features.numel() and torch.equal(tensor.reshape(-1), features.reshape(-1).to(tensor))


def _has_matrix(module: nn.Module, model: nn.Module) -> bool:
    """Whether it may be a classifier: it holds a matrix, and is not the whole of a network of several modules."""
    if isinstance(module, torch.jit.ScriptModule) or (module is model and next(module.children(), None) is not None):
        return False
    if isinstance(module, nn.modules.conv._ConvNd) and not is_pointwise(module):
        return False
    return isinstance(module, nn.Linear) or any(each.ndim > 1 for each in (*module.parameters(), *module.buffers()))


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_pointwise(module)


def _different(calls: list[_Seen]) -> list[_Seen]:
    """One call of each plain layer, of those that have the same weights one."""
    found: list[_Seen] = []
    for each in calls:
        if _is_plain(each.module) and not any(_same_weights(each.module, other.module) for other in found):
            found.append(each)
    return found


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    if a is b:
        return True
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("weight", "bias")]
    return all(
        x is y or (x is not None and y is not None and x.dtype == y.dtype and _same(x.detach(), y.detach()))
        for x, y in pairs
    )


def _classes(each: Returned, labels: Tensor) -> int | None:
    """C of a tensor with logits for as many rows as there are labels, or None."""
    shape = each.tensor.shape
    for classes in dict.fromkeys((shape[-1], shape[1])):
        if classes and each.tensor.numel() // classes == labels.numel() and classes > int(labels.long().max()):
            return classes
    return None


def _plausible(outputs: list[Returned], labels: Tensor | None) -> list[Returned]:
    """Those that may be logits: the one so named, or those with a row for each label and classes enough."""
    named = [each for each in outputs if each.name.rpartition(".")[2] == "logits"]
    if len(named) == 1:
        return named
    if labels is None:
        return outputs
    return [each for each in outputs if _classes(each, labels) is not None] or outputs


def place_of(modules: dict[str, nn.Module], module: str | nn.Module, option: str) -> str:
    """The name of a module of a network.

    Raises:
        InputError: there is none.
    """
    if isinstance(module, nn.Module):
        for name, each in modules.items():
            if each is module:
                return name
        raise InputError(f"expected {option}= to be a module of the network, got a {type(module).__name__} that is not")
    if not isinstance(module, str):
        raise InputError(f"expected {option}= to be a module or its name, got {type(module).__name__}")
    if module not in modules:
        linear = [name for name, each in modules.items() if isinstance(each, nn.Linear)]
        known = ", ".join(linear[-5:]) or "none"
        raise InputError(f"expected {option}= to name a module, got {module!r}; the last nn.Linear ones are: {known}")
    return module


def find_classifier(model: nn.Module, run: Callable[[], Any], layer: str | nn.Module | None = None) -> nn.Linear:
    """The linear layer that gives a network's logits, or the one named.

    Args:
        model: the network.
        run: makes one forward pass, and gives what the network returns.
        layer: a module, or its name; None to find it.

    Raises:
        InputError: no such layer, or it is no ``nn.Linear``.
    """
    search = Search(model, layer)
    with search.placed():
        output = run()
    head, _, _ = search.settle(output, None)
    module = clean_names(model)[head.place]
    if not isinstance(module, nn.Linear):
        raise InputError(f"expected an nn.Linear to give the logits, {head.name!r} is a {type(module).__name__}")
    return module
