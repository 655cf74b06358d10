"""What loaders give: batches of every structure, labels of every type, and random states that are put back."""

from __future__ import annotations

import copy
import json
import random
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.gloo import measure_with_a_sampler, on_processes
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measuring.batches import moved
from neuralcollapse.measuring.engine import Fingerprint
from neuralcollapse.measuring.preparation import random_states_kept

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + LABELS[:, None]


class Taking(nn.Module):
    """Takes its inputs in every way: alone, within a structure, by name; extra names are not taken."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        while not isinstance(x, Tensor):
            x = x["x"] if hasattr(x, "keys") else x[0] if isinstance(x, (tuple, list)) else x.x
        return self.head(self.body(x))


class TakingAny(Taking):
    """As Transformers' networks: any names."""

    def forward(self, x: Any, **others: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class TakingTwo(Taking):
    """Requires two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + y)


@dataclass(frozen=True)
class Record:
    x: Tensor
    labels: Tensor


@dataclass
class Holder:
    x: Tensor


Pair = namedtuple("Pair", ["inputs", "labels"])
Swapped = namedtuple("Swapped", ["labels", "x"])

BATCHES: dict[str, Any] = {
    "text beside": {"x": INPUTS, "labels": LABELS, "path": ["a.png"] * 60},
    "number beside": {"x": INPUTS, "labels": LABELS, "epoch": 3, "share": 0.5},
    "None beside": {"x": INPUTS, "labels": LABELS, "mask": None},
    "label": {"x": INPUTS, "label": LABELS, "index": torch.arange(60)},
    "ordered": OrderedDict(x=INPUTS, labels=LABELS.tolist()),
    "default": defaultdict(list, x=INPUTS, labels=LABELS),
    "user's": UserDict(x=INPUTS, labels=LABELS),
    "dictionary, labels": ({"x": INPUTS, "name": "a"}, LABELS),
    "nested": ({"x": {"x": (INPUTS, None)}}, LABELS),
    "tuple, labels": ((INPUTS, "text"), LABELS),
    "list": [INPUTS, LABELS],
    "NumPy": (INPUTS.numpy(), LABELS.numpy()),
    "reversed NumPy": (INPUTS.numpy()[::-1], LABELS.numpy()[::-1]),
    "list of labels": (INPUTS, LABELS.tolist()),
    "tuple of tensors": (INPUTS, tuple(LABELS)),
    "index": (INPUTS, LABELS, torch.arange(60)),
    "weight": (INPUTS, LABELS, torch.rand(60)),
    "column": (INPUTS, LABELS[:, None]),
    "uint16": (INPUTS, LABELS.to(torch.uint16)),
    "big-endian": (INPUTS, LABELS.numpy().astype(">u4")),
    "named pair": Pair(INPUTS, LABELS),
    "named the other way": Swapped(LABELS, INPUTS),
    "record": Record(INPUTS, LABELS),
    "holder": (Holder(INPUTS), LABELS),
}


@pytest.mark.parametrize("model", [Taking, TakingAny])
@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_every_structure_give_the_same(name: str, model: type[Taking]) -> None:
    want = nc.measure(Taking(), [(INPUTS, LABELS)])
    found = nc.measure(model(), [BATCHES[name]], ood=[BATCHES[name], BATCHES[name]], metrics="nc5")
    for number, value in want.numbers().items():
        assert found.numbers()[number] == pytest.approx(value, rel=1e-9, abs=1e-12), number


@pytest.mark.parametrize("batch", [INPUTS, INPUTS.numpy(), (INPUTS,), {"x": INPUTS, "id": ["a"]}, Holder(INPUTS)])
def test_out_of_distribution_batches_need_no_labels(batch: Any) -> None:
    ood = [(INPUTS, torch.full((60,), -1))]
    want = nc.measure(Taking(), [(INPUTS, LABELS)], ood=ood, metrics="nc5").extra["nc5"]
    assert nc.measure(Taking(), [(INPUTS, LABELS)], ood=[batch], metrics="nc5").extra["nc5"] == pytest.approx(want)


@pytest.mark.parametrize("inputs", [(INPUTS, INPUTS), [INPUTS, INPUTS], {"y": INPUTS, "x": INPUTS, "name": "a"}])
def test_a_network_that_requires_two_inputs_gets_two(inputs: Any) -> None:
    want = nc.measure(Taking(), [(INPUTS * 2, LABELS)]).nc1
    assert nc.measure(TakingTwo(), [(inputs, LABELS)]).nc1 == pytest.approx(want, rel=1e-9)


REFUSED: dict[str, tuple[Any, str]] = {
    "text": ("abc", "got a str as batch 0"),
    "nothing": (None, "got a NoneType as batch 0"),
    "inputs alone": (INPUTS, "got a Tensor as batch 0"),
    "one": ((INPUTS,), "got a tuple of 1 as batch 0"),
    "four": ((INPUTS, LABELS, LABELS, LABELS), "got a tuple of 4 as batch 0"),
    "no labels": ({"x": INPUTS}, "'labels' or 'label' entry in each batch, got ['x'] in batch 0"),
    "no names": ({"image": INPUTS, "labels": LABELS}, "Taking.forward takes (x, mask), got image in batch 0"),
    "words": ((INPUTS, ["cat"] * 60), "<U3 at batch 0, entry 1"),
    "None labels": ({"x": INPUTS, "labels": None}, "got NoneType at batch 0, entry 'labels'"),
    "one-hot": ((INPUTS, torch.eye(3)[LABELS]), "give labels.argmax(1)"),
    "one-hot integers": ((INPUTS, torch.eye(3)[LABELS].long()), "give labels.argmax(1)"),
    "soft": ((INPUTS, torch.full((60, 3), 1 / 3)), "give labels.argmax(1)"),
    "several": ((INPUTS, torch.ones(60, 3)), "no class to collapse to"),
    "regression": ((INPUTS, INPUTS[:, 0]), "targets of regression have none"),
    "2.7": ((INPUTS, LABELS + 0.7), "0.7 is not a class"),
    "whole floats": ((INPUTS, LABELS.double()), "give labels.long() if they are classes"),
    "booleans": ((INPUTS, LABELS > 0), "give labels.long() where False is class 0"),
    "masked": ((INPUTS, np.ma.masked_equal(LABELS.numpy(), 2)), "without masked entries, got 20"),
    "complex": ((INPUTS, LABELS.to(torch.complex64)), "expected real labels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_named_with_its_place(name: str) -> None:
    batch, said = REFUSED[name]
    with pytest.raises(nc.InputError) as error:
        nc.measure(Taking(), [batch])
    assert said in str(error.value) and "\n" not in str(error.value)


class Unmovable:
    def to(self) -> None: ...


def test_what_has_to_and_cannot_be_moved_is_named() -> None:
    with pytest.raises(nc.InputError, match="at batch 1, entry 0, entry 'image', got a Unmovable"):
        nc.measure(Taking(), [(INPUTS, LABELS), ({"image": Unmovable()}, LABELS)])


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (TensorDataset(INPUTS, LABELS), r"got the data set TensorDataset: pass DataLoader\(data_set"),
        (INPUTS, "got Tensor"),
        ({"x": INPUTS, "labels": LABELS}, "got dict"),
        (3, "got int"),
        (None, "got NoneType"),
        ("train", "got str"),
        (iter([(INPUTS, LABELS)]), "gone through again"),
    ],
)
def test_what_is_no_loader_is_refused(loader: Any, said: str) -> None:
    with pytest.raises(nc.InputError, match=said):
        nc.measure(Taking(), loader)


def test_a_data_set_that_streams_batches_is_a_loader() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            yield from zip(INPUTS.split(7), LABELS.split(7), strict=True)

    assert nc.measure(Taking(), Stream()).num_examples == 60


def test_moving_keeps_structures_and_changes_no_original() -> None:
    packed = pack_padded_sequence(torch.ones(2, 3, 1), torch.tensor([3, 2]), batch_first=True)
    torch_size = torch.Size([2, 3])
    batch = {"a": [Holder(INPUTS), Pair(1, None)], "p": packed, "s": torch_size, "d": defaultdict(int, k=INPUTS)}
    before = copy.copy(batch)
    meta = moved(batch, torch.device("meta"), "batch 0")
    assert meta["a"][0].x.is_meta and isinstance(meta["a"][1], Pair) and isinstance(meta["p"], PackedSequence)
    assert meta["p"].data.is_meta and meta["d"]["k"].is_meta and meta["d"]["new"] == 0 and meta["s"] == torch_size
    assert batch == before and not batch["a"][0].x.is_meta and not batch["d"]["k"].is_meta


class Drawing(Dataset):
    """A data set with generators of every kind of its own."""

    def __init__(self) -> None:
        self.states = [np.random.default_rng(1), np.random.RandomState(2)]
        self.transform = {"inner": random.Random(3), "torch": torch.Generator().manual_seed(4)}

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.draw()
        return INPUTS[index], LABELS[index]

    def draw(self) -> list[float]:
        first, second = self.states
        drawn = torch.rand(1, generator=self.transform["torch"])
        return [first.random(), second.random(), self.transform["inner"].random(), float(drawn)]


class Noisy(RandomSampler):
    """A sampler with a generator under a name of its own."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data, generator=torch.Generator().manual_seed(5))
        self.noise = np.random.default_rng(6)

    def __iter__(self) -> Iterator[int]:
        self.noise.random()
        return super().__iter__()


@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_generators_of_loader_sampler_and_data_are_put_back(budget: int) -> None:
    def loader() -> DataLoader[Any]:
        data = Drawing()
        return DataLoader(data, 16, sampler=Noisy(data), generator=torch.Generator().manual_seed(7))

    measured, other = loader(), loader()
    nc.measure(Taking(), measured, ood=measured, memory_budget=budget)
    assert measured.dataset.draw() == other.dataset.draw()
    assert measured.sampler.noise.random() == other.sampler.noise.random()
    for one, two in zip(measured, other, strict=True):
        assert torch.equal(one[0], two[0])
    assert torch.equal(measured.generator.get_state(), other.generator.get_state())


def test_generators_are_put_back_after_an_error() -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    loader = DataLoader(TensorDataset(INPUTS, LABELS + 5), 16, shuffle=True, generator=generator)
    with pytest.raises(nc.InputError, match="labels in"):
        nc.measure(Taking(), loader)
    assert torch.equal(generator.get_state(), before)
    with random_states_kept(loader, None, 3), pytest.raises(ZeroDivisionError):
        generator.manual_seed(9)
        raise ZeroDivisionError
    assert torch.equal(generator.get_state(), before)


def test_a_loop_over_persistent_workers_goes_on_after_measuring() -> None:
    loader = DataLoader(TensorDataset(INPUTS, LABELS), 10, num_workers=1, persistent_workers=True)
    seen = []
    for number, (_, labels) in enumerate(loader):
        seen.append(labels)
        if number == 1:
            assert nc.measure(Taking(), loader).num_examples == 60
    assert torch.equal(torch.cat(seen), LABELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 3e4, 1e30, 1e300])
def test_both_passes_are_compared_in_every_type_and_scale(dtype: torch.dtype, scale: float) -> None:
    features = (torch.rand(40, 64, dtype=torch.float64) * scale).to(dtype)
    if not bool(torch.isfinite(features).all()):
        return
    labels = torch.arange(40) % 2
    one, same, other = (Fingerprint(2) for _ in range(3))
    one.add(features, labels)
    order = torch.randperm(40)
    for rows in order.split(7):
        same.add(features[rows], labels[rows])
    one.require_same(same)
    changed = features.clone()
    changed[3] = features[5] * 0.5
    other.add(changed, labels)
    with pytest.raises(nc.InputError, match="class 1 differed"):
        one.require_same(other)


class Reusing:
    """A loader that writes each batch into the same memory, as some do for speed."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = torch.empty_like(self.inputs[:20]), torch.empty_like(self.labels[:20])
        for start in range(0, len(self.labels), 20):
            x.copy_(self.inputs[start : start + 20])
            y.copy_(self.labels[start : start + 20])
            yield x, y


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_a_loader_may_reuse_its_memory(budget: int) -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(100, 6), torch.randint(0, 3, (100,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    got = nc.measure(model, Reusing(inputs, labels), memory_budget=budget)
    want = nc.measure(model, [(inputs, labels)])
    for name in ("accuracy", "nearest_mean_accuracy", "nc4_mismatch"):
        assert getattr(got, name) == getattr(want, name), name
    layers = nc.measure_layers(model, Reusing(inputs, labels), memory_budget=1 << 30)
    assert layers["2"].report.accuracy == want.accuracy


class Tokens(nn.Module):
    """Takes a mask beside its tokens, as text classifiers do."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 6), nn.Linear(6, classes)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.embedding(ids).tanh())


def test_tokens_a_mask_and_labels_are_not_read_as_two_and_an_index() -> None:
    ids, mask = torch.randint(0, 5, (8, 7)), torch.ones(8, 7, dtype=torch.int64)
    model = Tokens()
    for labels in (ids % 3, torch.arange(8) % 3):
        with pytest.raises(nc.InputError, match=r"Tokens may take .* give \{'ids': …, 'mask': …, 'labels': …\}, or"):
            nc.measure(model, [(ids, mask, labels)])
    assert nc.measure(model, [{"ids": ids, "mask": mask, "labels": ids % 3}]).num_examples == 56
    embedded = torch.randn(8, 7, 4)
    with pytest.raises(nc.InputError, match="may take the first two"):
        nc.measure(Embedded(), [(embedded, mask, torch.arange(8) % 3)])
    index, weights = torch.arange(8), torch.rand(8)
    assert nc.measure(model, [(ids, ids % 3, weights)]).num_examples == 56
    plain = nn.Sequential(nn.Linear(4, 3))
    assert nc.measure(plain, [(torch.randn(8, 4), torch.arange(8) % 3, index)]).num_examples == 8


def test_positions_in_another_order_than_their_labels_are_refused() -> None:
    """A recurrent layer gives (length, batch, classes), the labels are (batch, length)."""

    class LengthFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    model, inputs, labels = LengthFirst(), torch.randn(5, 12, 8), torch.randint(0, 3, (12, 5))
    with pytest.raises(nc.InputError, match=r"a label for each position, \(5, 12\), got shape \(12, 5\)"):
        nc.measure(model, [(inputs, labels)])
    assert nc.measure(model, [(inputs, labels.T)]).num_examples == 60


class Embedded(nn.Linear):
    """Takes which tokens count beside their embeddings."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, input: Tensor, which: Tensor | None = None) -> Tensor:
        return super().forward(input).mean(dim=1)


class Lengths(nn.Module):
    """Takes the lengths of its sequences beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, seq_lens: Tensor | None = None) -> Tensor:
        return self.head(self.embedding(ids).mean(dim=1))


def test_sequences_their_lengths_and_labels_are_not_read_as_two_and_an_index() -> None:
    """One number an example, as labels are."""
    ids, lengths, labels = torch.randint(0, 5, (8, 7)), torch.arange(8) % 4, torch.arange(8) % 3
    with pytest.raises(nc.InputError, match="of which Lengths may take the first two"):
        nc.measure(Lengths(), [(ids, lengths, labels)])
    assert nc.measure(Lengths(), [{"ids": ids, "seq_lens": lengths, "labels": labels}]).num_examples == 8


def test_examples_that_a_distributed_sampler_repeats_are_told_of(tmp_path: Path) -> None:
    on_processes(2, tmp_path, measure_with_a_sampler, str(tmp_path))
    for rank in (0, 1):
        odd, even = json.loads((tmp_path / f"{rank}.json").read_text())
        assert odd[0] == 50 and "1 of the examples count twice" in odd[-1]
        assert even[0] == 50 and not any("twice" in str(note) for note in even)
