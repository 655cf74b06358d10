"""docs/faq.md: each line of code there gives the message that stands under it, word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

import neuralcollapse as nc
from neuralcollapse.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "faq.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```console\n\$ neuralcollapse (.*?)\n(.*?)```", PAGE, re.DOTALL)


class Tied(nn.Module):
    """The classifier is the transposed embedding, which no layer applies."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.embedding = nn.LayerNorm(8), nn.Embedding(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) @ self.embedding.weight.T


class Network(nn.Module):
    """A body and heads; the logits are capped if asked for."""

    def __init__(self, *classes: int, capped: bool = False) -> None:
        super().__init__()
        self.body, self.capped = nn.Linear(8, 6), capped
        names = ("head",) if len(classes) == 1 else ("first", "second")
        for name, count in zip(names, classes, strict=True):
            self.add_module(name, nn.Linear(6, count))
        self.names = names

    def forward(self, x: Tensor) -> Any:
        features = torch.relu(self.body(x))
        outputs = {name: getattr(self, name)(features) for name in self.names}
        if len(outputs) > 1:
            return outputs
        (logits,) = outputs.values()
        return 5 * torch.tanh(logits / 5) if self.capped else logits


class Capped(Network):
    """Its logits are capped."""


class TwoHeads(Network):
    """Two heads of as many classes."""


def names() -> dict[str, Any]:
    """What the lines of code on the page name."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(40, 8), torch.arange(40) % 5
    loader = [(inputs[:20], labels[:20]), (inputs[20:], labels[20:])]
    broken = inputs.clone()
    broken[3] = float("nan")
    return {
        "nc": nc,
        "torch": torch,
        "model": nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)),
        "tied": Tied(),
        "capped": Capped(5, capped=True),
        "binary": Network(1),
        "two_heads": TwoHeads(5, 5),
        "loader": loader,
        "inputs": inputs,
        "features": inputs.numpy(),
        "labels": labels.numpy(),
        "weight": np.zeros((5, 8)),
        "generator": (batch for batch in loader),
        "inputs_only": [inputs[:20], inputs[20:]],
        "labels_from_one": [(inputs, labels + 1)],
        "two_class_loader": [(inputs, labels % 2)],
        "one_hot_loader": [(inputs, one_hot(labels, 5))],
        "loader_with_nan": [(broken, labels)],
    }


def said(expected: str, found: str) -> bool:
    """Whether two texts are the same but for white space; … at the end stands for what is left out."""
    wanted, got = " ".join(expected.split()), " ".join(found.split())
    return got.startswith(wanted[:-1].rstrip()) if wanted.endswith("…") else got == wanted


def test_the_page_has_messages() -> None:
    assert len(CODE) >= 25 and len(COMMANDS) >= 5
    assert PAGE.count("```python") == len(CODE), "each line of code has its message"


@pytest.mark.wrong_input
@pytest.mark.parametrize(("code", "message"), CODE)
def test_a_message_of_the_library(code: str, message: str) -> None:
    with pytest.raises((nc.InputError, AttributeError)) as error:
        exec(code, names())
    assert said(message, f"{error.typename}: {error.value}")


@pytest.mark.parametrize(("arguments", "message"), COMMANDS)
def test_a_message_of_a_command(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NEURALCOLLAPSE_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(arguments))
    assert ended.value.code == 2
    assert said(message, capsys.readouterr().err)
