"""Which layer is the classifier: found by comparing what layers give with what the network returns, or named."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse._errors import suggest
from neuralcollapse.measuring.head import (
    ITSELF,
    WAYS_OUT,
    ClassifierHead,
    Weights,
    classes_last,
    is_pointwise,
    weights_of,
    with_classifier,
)
from neuralcollapse.measuring.hooks import first_tensor, require_hookable, version
from neuralcollapse.measuring.preparation import evaluation
from neuralcollapse.measuring.relations import DIRECT, Relation, Returned, coarseness, relate, returned

# What layers gave is kept until the forward pass ends, to compare it: that of the last ones, up to so many bytes.
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
        """Whether the network has changed either tensor since, so that they can't be compared."""
        return self.versions != (version(self.entered), version(self.left))

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.entered, self.left))

    def __str__(self) -> str:
        shape = f"{self.features.shape[-1]} → {self.logits.shape[-1]}"
        return f"{self.name!r} ({type(self.module).__name__}, {shape})"


Match = tuple[_Seen, Relation]


class ClassifierSearch:
    """Watches one forward pass, and says which layer is the classifier.

    Args:
        model: the network.
        layer: the classifier or its name, if it is named; it alone is watched then.
    """

    def __init__(self, model: nn.Module, layer: str | nn.Module | None = None) -> None:
        require_hookable(model)
        self._model = model
        modules = dict(model.named_modules())
        self._named = None if layer is None else name_of(modules, layer, "layer")
        if self._named is None:
            self._watched = {each: name for name, each in reversed(modules.items()) if _has_matrix(each, model)}
        else:
            module = modules[self._named]
            self._watched = {module: self._named}
            if not _has_matrix(module, model):
                raise InputError(
                    "expected layer= to be a layer with a weight matrix, such as an nn.Linear, "
                    f"got {self._named!r}, {type(module).__name__}"
                )
        self._seen: deque[_Seen] = deque()
        self._open: dict[nn.Module, list[Tensor | None]] = {}
        self._calls: Counter[nn.Module] = Counter()

    @contextmanager
    def attached(self) -> Iterator[ClassifierSearch]:
        """Within the block, hooks are on each module that may be the classifier."""
        with ExitStack() as stack:
            # a loader may run the network too, to make its batches: only the last pass counts
            stack.enter_context(self._model.register_forward_pre_hook(self.begin))
            for module, name in self._watched.items():
                stack.enter_context(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                stack.enter_context(module.register_forward_hook(partial(self._leave, name or ITSELF)))
            yield self

    def begin(self, *_: Any) -> None:
        """A forward pass begins: forget earlier ones."""
        self._seen.clear()
        self._calls.clear()
        self._open.clear()

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered = first_tensor((arguments, named))
        if entered is not None:
            entered = entered.detach()
            # small tensors are copied; of a large one its version tells whether the network overwrites it
            if self._named is not None or entered.ndim == 2 or entered.shape[2:].numel() == 1 or entered.is_inference():
                entered = entered.clone()
        self._open.setdefault(module, []).append(entered)

    def _leave(self, name: str, module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        entered, left = self._open[module].pop(), first_tensor(output)
        call, self._calls[module] = self._calls[module], self._calls[module] + 1
        for each in (entered, left):
            if each is None or not each.is_floating_point() or each.ndim < 2:
                return
        assert entered is not None and left is not None
        left = left.detach()
        if left.ndim == 2 or left.is_inference():
            left = left.clone()
        channels_first = is_pointwise(module) or (
            not isinstance(module, nn.Linear) and entered.ndim > 2 and entered.shape[2:].numel() == 1
        )
        seen = _Seen(name, module, call, entered, left, channels_first, (version(entered), version(left)))
        if seen.features.shape[:-1] == seen.logits.shape[:-1]:
            self._seen.append(seen)
        while len(self._seen) > 1 and sum(each.bytes for each in self._seen) > _MOST_BYTES:
            self._seen.popleft()

    def identify(self, output: Any, labels: Tensor | None) -> tuple[ClassifierHead, Tensor, Tensor]:
        """The classifier in the pass just made, what entered it and what it gave; an error if none or several fit.

        ``output`` is what the network returned.
        """
        outputs = returned(output)
        if self._named is not None:
            return self._identify_named(outputs)
        if labels is not None and (not labels.numel() or labels.is_floating_point() or labels.is_complex()):
            labels = None  # such labels tell nothing, and are refused later
        return self._find(_plausible(outputs, labels), labels)

    def _identify_named(self, outputs: list[Returned]) -> tuple[ClassifierHead, Tensor, Tensor]:
        calls = [each for each in self._seen if not each.overwritten]
        if not self._calls:
            raise InputError(f"expected the forward pass to reach the layer {self._named!r}, it did not")
        if not calls:
            raise InputError(
                f"expected the layer {self._named!r} to give a row of logits for each row of features, it did not: "
                "name the module that gives the features with features="
            )
        matches = [
            (each, target, found)
            for each in calls
            for target in outputs
            if (found := relate(each.logits, target.tensor))
        ]
        matches.sort(key=lambda match: not match[2].exact)
        seen, target, relation = matches[0] if matches else (calls[-1], None, None)
        weights = self._weights(seen)
        if weights is None:
            raise InputError(
                f"expected a layer whose output is W h + b of its input h, {seen} is not one: name the module that "
                "gives the features with features=, and give weight= and bias= where there is a classifier"
            )
        notes = [] if matches else [f"the output of {seen.name!r} is not what the network returns"]
        return self._head(seen, weights, target, relation, notes)

    def _find(self, outputs: list[Returned], labels: Tensor | None) -> tuple[ClassifierHead, Tensor, Tensor]:
        if not outputs:
            raise InputError(
                f"expected {type(self._model).__name__} to return floating logits with an axis of classes, it returned "
                f"none: {WAYS_OUT}"
            )
        if outputs[0].tensor.is_meta:
            return self._find_by_shape(outputs[0])
        # plain layers before the modules that hold them, the last to run first; then the holders, the innermost first
        order = [each for each in reversed(self._seen) if _is_plain(each.module)]
        order += [each for each in self._seen if not _is_plain(each.module)]
        # a layer that gives the very numbers comes before those that only come near
        exact: dict[str, list[Match]] = {each.name: [] for each in outputs}
        near: dict[str, list[Match]] = {each.name: [] for each in outputs}
        for target in outputs:
            matches = [
                (each, relation)
                for each in order
                if not each.overwritten and (relation := relate(each.logits, target.tensor)) is not None
            ]
            for seen, relation in matches:
                (exact if relation.exact or len(matches) == 1 else near)[target.name].append((seen, relation))
        best = {name: exact[name] or near[name] for name in exact}
        target, by_labels = self._logits_among(outputs, best, labels)
        found = exact[target.name] + near[target.name]
        plain = {seen.module: seen for seen, _ in found if _is_plain(seen.module)}
        if len(plain) > 1 and not bool(target.tensor.any()):
            raise self._several("returns, all zeros as from a classifier initialised with zeros", list(plain.values()))
        others = [best[each.name][0][0] for each in outputs if each is not target and best[each.name]]
        notes = [f"the network also returns the output of {each}" for each in others if _is_plain(each.module)]
        for matches in (exact[target.name], near[target.name]):
            different = _with_different_weights([seen for seen, _ in matches])
            if len(different) > 1:
                raise self._several(f"returns as {target.name!r}", different)
            for seen, relation in sorted(matches, key=lambda match: match[1] != DIRECT):
                weights = self._weights(seen)
                if weights is not None:
                    head, entered, left = self._head(seen, weights, target, relation, notes)
                    return replace(head, by_labels=by_labels), entered, left
        raise InputError(
            f"expected a classifier whose logits are W h + b of its input h, {found[0][0]}, which gives what the "
            f"network returns, is not one: {WAYS_OUT}"
        )

    def _find_by_shape(self, target: Returned) -> tuple[ClassifierHead, Tensor, Tensor]:
        """For a network of the meta device, which has no numbers to compare: the last linear layer of that shape."""
        for seen in reversed(self._seen):
            if isinstance(seen.module, nn.Linear) and seen.left.shape == target.tensor.shape:
                weights = Weights(seen.module.weight, seen.module.bias)
                return ClassifierHead(seen.name, seen.name, call=seen.call, weights=weights), seen.entered, seen.left
        raise self._none("returns, by shape")

    def _logits_among(
        self, outputs: list[Returned], best: dict[str, list[Match]], labels: Tensor | None
    ) -> tuple[Returned, bool]:
        """Which of the tensors that the network returns are its logits, and whether the labels told.

        ``best`` are the layers that give each of them.
        """
        target, by_labels = outputs[0], False
        if len(outputs) > 1:
            names = ", ".join(each.name for each in outputs)
            # a tensor that enters the layer of another is features, not logits
            features = {
                each.name
                for each in outputs
                for other in outputs
                if other is not each and best[other.name] and _same(each.tensor, best[other.name][0][0].features)
            }
            heads = [each for each in outputs if best[each.name] and each.name not in features]
            modules = [{seen.module for seen, _ in best[each.name]} for each in heads]
            several = any(modules[0].isdisjoint(each) for each in modules[1:])
            top = None if labels is None else int(labels.long().max()) + 1
            fitting = (
                []
                if labels is None
                else [each for each in outputs if each.name not in features and _classes(each, labels) == top]
            )
            if len(fitting) == 1:
                (target,), by_labels = fitting, several
            elif several:
                layers = [best[each.name][0][0] for each in heads]
                raise self._several(f"returns as logits, which any of {names} may be", layers)
            elif heads:
                target = heads[0]
                rest = [each.name for each in outputs if not best[each.name] and each.name not in features]
                if rest:
                    raise self._none(f"returns as {' and '.join(map(repr, rest))}, which may be the logits")
            else:
                raise self._none(f"returns among {names}")
        if not best[target.name]:
            raise self._none(f"returns as {target.name!r}")
        return target, by_labels

    def _several(self, what: str, layers: list[_Seen]) -> InputError:
        return InputError(
            f"expected one layer whose output is what {type(self._model).__name__} {what}, found several: "
            f"{', '.join(dict.fromkeys(map(str, layers)))}; {WAYS_OUT}"
        )

    def _none(self, what: str) -> InputError:
        linear = [each for each in self._seen if _is_plain(each.module)]
        ran = ", ".join(dict.fromkeys(str(each) for each in (linear or list(self._seen))[-4:]))
        last = f"the last linear layers to run were {ran}" if ran else "no nn.Linear ran"
        changed = [each.name for each in self._seen if each.overwritten]
        also = f"; the network overwrites what {changed[-1]!r} is given or gives" if changed else ""
        return InputError(
            f"expected a layer whose output is what {type(self._model).__name__} {what}, found none; "
            f"{last}{also}: {WAYS_OUT}"
        )

    def _weights(self, seen: _Seen) -> Weights | None:
        features, logits = (each.reshape(-1, each.shape[-1]) for each in (seen.features, seen.logits))
        return weights_of(seen.module, features, logits, seen.entered)

    def _head(
        self, seen: _Seen, weights: Weights, target: Returned | None, relation: Relation | None, notes: list[str]
    ) -> tuple[ClassifierHead, Tensor, Tensor]:
        if weights.read_off and not weights.unit:
            text = f"{seen.name!r} is no plain linear layer: its effective weight and bias were read off its outputs"
            notes = [text, *notes]
        place = "" if seen.name == ITSELF else seen.name
        error, first = coarseness(seen.left, convolved=weights.convolved), seen.channels_first
        head = ClassifierHead(
            seen.name, place, call=seen.call, tolerance=error, channels_first=first, notes=tuple(notes)
        )
        name = "" if target is None else target.name
        return with_classifier(head, weights, relation, name), seen.entered, seen.left


def find_classifier(model: nn.Module, run: Callable[[], Any]) -> nn.Linear:
    """The linear layer that gives a network's logits; ``run`` makes a forward pass and gives what the network returns.

    That pass is made in eval mode without gradients.

    Raises:
        InputError: there is no such layer, or it is no ``nn.Linear``.
    """
    search = ClassifierSearch(model)
    with evaluation(model):
        with search.attached():
            output = run()
        head, _, _ = search.identify(output, None)
    module = model.get_submodule(head.place)
    if not isinstance(module, nn.Linear):
        raise InputError(f"expected an nn.Linear to give the logits, {head.name!r} is a {type(module).__name__}")
    return module


def name_of(modules: dict[str, nn.Module], module: str | nn.Module, option: str) -> str:
    """The name of a module of a network, whose modules are given by name; an error of ``option`` if it has none."""
    if isinstance(module, nn.Module):
        for name, each in modules.items():
            if each is module:
                return name
        raise InputError(f"expected {option}= to be a module of the network, got a {type(module).__name__} that is not")
    if module not in modules:
        linear = [name for name, each in modules.items() if isinstance(each, nn.Linear)]
        known = ", ".join(linear[-5:]) or "none"
        hint = suggest(module, filter(None, modules))
        raise InputError(
            f"expected {option}= to name a module, got {module!r}{hint}; the last nn.Linear ones are: {known}"
        )
    return module


def _same(tensor: Tensor, features: Tensor) -> bool:
    return tensor.numel() == features.numel() and torch.equal(tensor.reshape(-1), features.reshape(-1).to(tensor))


def _has_matrix(module: nn.Module, model: nn.Module) -> bool:
    """Whether it may be the classifier: it holds a matrix, and is not the whole of a network of several modules."""
    if isinstance(module, torch.jit.ScriptModule) or (module is model and next(module.children(), None) is not None):
        return False
    if isinstance(module, nn.modules.conv._ConvNd) and not is_pointwise(module):
        return False
    return isinstance(module, nn.Linear) or any(each.ndim > 1 for each in (*module.parameters(), *module.buffers()))


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_pointwise(module)


def _with_different_weights(calls: list[_Seen]) -> list[_Seen]:
    """One call of each plain layer; of layers with equal weights, one call of one of them."""
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
    """C of a tensor with a row of logits for each label; None for another tensor."""
    shape = each.tensor.shape
    for classes in dict.fromkeys((shape[-1], shape[1])):
        if classes and each.tensor.numel() // classes == labels.numel() and classes > int(labels.long().max()):
            return classes
    return None


def _plausible(outputs: list[Returned], labels: Tensor | None) -> list[Returned]:
    """The tensors that may be logits: the one named "logits", or those with a row for each label and enough classes."""
    named = [each for each in outputs if each.name.rpartition(".")[2] == "logits"]
    if len(named) == 1:
        return named
    if labels is None:
        return outputs
    return [each for each in outputs if _classes(each, labels) is not None] or outputs
