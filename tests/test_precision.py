"""The process-wide precision of float32: changed only where it must be, and never under another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from neuralcollapse._linalg import full_precision

CPU = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)
CUDA = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    """Each test begins with nothing set for the processor, whatever ran before it, and leaves it so."""
    found = values(CPU)
    for setting in CPU:
        setting.fp32_precision = "none"
    before = values(CPU + CUDA)
    yield
    after = values(CPU + CUDA)
    for setting, value in zip(CPU, found, strict=True):
        if value != "none":
            setting.fp32_precision = value
    assert after == before


def values(settings: tuple) -> list[str]:
    return [setting.fp32_precision for setting in settings]


def test_what_is_right_already_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default nothing is changed for a processor."""
    written: list[str] = []
    kind = type(torch.backends.mkldnn.matmul)
    monkeypatch.setattr(kind, "__setattr__", lambda self, name, value: written.append(value))
    with full_precision(torch.device("cpu")):
        pass
    assert not written


@pytest.mark.parametrize("value", ["bf16", "tf32"])
def test_a_setting_is_changed_within_the_block_and_put_back(value: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = value
    try:
        with full_precision(torch.device("cpu")):
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            with full_precision(torch.device("cpu")):
                assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == value
        with pytest.raises(KeyError), full_precision(torch.device("cpu")):
            raise KeyError
        assert torch.backends.mkldnn.matmul.fp32_precision == value
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


def test_what_a_wider_setting_says_stays_its_to_say() -> None:
    torch.backends.mkldnn.fp32_precision = "bf16"
    try:
        with full_precision(torch.device("cpu")):
            assert values(CPU) == ["ieee"] * 3
        assert values(CPU) == ["bf16"] * 3
    finally:
        torch.backends.mkldnn.fp32_precision = "none"
    assert values(CPU) == ["none"] * 3


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_two_threads_at_once(first_to_leave: int) -> None:
    """The one that leaves first does not take the precision away from the other."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    entered = threading.Barrier(3)
    leave = [threading.Event(), threading.Event()]
    seen: list[str] = []

    def work(number: int) -> None:
        with full_precision(torch.device("cpu")):
            entered.wait()
            leave[number].wait()
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    try:
        for thread in threads:
            thread.start()
        entered.wait()
        for number in (first_to_leave, 1 - first_to_leave):
            leave[number].set()
            threads[number].join()
        assert seen == ["ieee", "ieee"]
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


def test_many_threads_in_and_out() -> None:
    torch.backends.mkldnn.conv.fp32_precision = "tf32"
    wrong: list[str] = []

    def work() -> None:
        for _ in range(200):
            with full_precision(torch.device("cpu")):
                if torch.backends.mkldnn.conv.fp32_precision != "ieee":
                    wrong.append(torch.backends.mkldnn.conv.fp32_precision)

    threads = [threading.Thread(target=work) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and torch.backends.mkldnn.conv.fp32_precision == "tf32"
    finally:
        torch.backends.mkldnn.conv.fp32_precision = "none"
