"""The classifier of a real network's file: by its name, or found where one weight alone fits the features."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuralcollapse import InputError, measure_features
from neuralcollapse.files.measure_files import FileMeasurement, measure_files
from neuralcollapse.files.options import FileOptions


class Network(nn.Module):
    """A convolution, a hidden layer and a last layer under the names that networks of libraries have."""

    def __init__(self, last: str = "fc", hidden: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.body = nn.Linear(hidden, 6)
        setattr(self, last, nn.Linear(6, 3))


def layer() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


def measured(tmp_path: Path, weight: str | Path) -> FileMeasurement:
    features, labels = layer()
    np.savez(tmp_path / "examples.npz", features=features.numpy(), labels=labels.numpy())
    return measure_files(tmp_path / "examples.npz", FileOptions(weight=Path(weight)))


def expected(last: nn.Linear) -> Any:
    return measure_features(*layer(), last.weight.detach(), last.bias.detach())


def same(found: FileMeasurement, last: nn.Linear) -> None:
    assert found.report is not None
    assert found.report.mse.total == pytest.approx(expected(last).mse.total, rel=1e-12)
    assert found.report.nc3 == pytest.approx(expected(last).nc3, rel=1e-12)


@pytest.mark.parametrize("last", ["fc", "classifier"])
@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "safetensors"])
def test_the_only_weight_that_fits_is_found_with_its_bias(tmp_path: Path, last: str, ending: str) -> None:
    net, path = Network(last), tmp_path / f"model.{ending}"
    if ending == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(net.state_dict(), path)
    else:
        torch.save({"state_dict": net.state_dict(), "epoch": 3} if ending == "ckpt" else net.state_dict(), path)
    found = measured(tmp_path, path)
    same(found, getattr(net, last))
    prefix = "state_dict." if ending == "ckpt" else ""
    assert found.note == f"classifier: {prefix}{last}.weight and {prefix}{last}.bias of {path}"


def test_of_several_that_fit_a_usual_name_decides_and_otherwise_the_user_does(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    net = Network("fc", hidden=6)  # body.weight has six columns too
    torch.save(net.state_dict(), path)
    same(measured(tmp_path, path), net.fc)
    odd = Network("predict", hidden=6)
    torch.save(odd.state_dict(), path)
    with pytest.raises(InputError, match=r"got 2 that fit: body.weight \(6, 6\), predict.weight \(3, 6\); name it"):
        measured(tmp_path, path)
    same(measured(tmp_path, f"{path}:predict.weight"), odd.predict)
    torch.save({"module": odd.state_dict()}, path)  # as under DistributedDataParallel
    same(measured(tmp_path, f"{path}:predict.weight"), odd.predict)


def test_a_file_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "epoch.1:fc.pt"
    torch.save(Network().state_dict(), path)
    assert measured(tmp_path, path).report is not None


def test_a_pt_file_holds_features_and_labels_too(tmp_path: Path) -> None:
    features, labels = layer()
    last = nn.Linear(6, 3)
    content = {"features": features, "labels": labels, "weight": last.weight, "bias": last.bias}
    torch.save(content, tmp_path / "layer.pt")
    same(measure_files(tmp_path / "layer.pt", FileOptions()), last)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("model.pt:fc.wieght", "has no 'fc.wieght' (did you mean 'fc.weight'"),
        ("model.pt:zzz", "has no 'zzz'; it holds body.bias, body.weight, conv1.bias"),
        ("model.pt:fc.bias", "expected a classifier weight of shape (C, p), got (3,)"),
        ("model.pt:body.weight", "expected a classifier weight of shape (6, 6), got (6, 7)"),
        ("absent.pt:fc.weight", "no file"),
        ("other.pt", "got none: body.weight (6, 7), conv1.weight (4, 1, 3, 3), fc.weight (3, 5)"),
        ("number.pt", "expected a dictionary of tensors, got int"),
        ("code.pt", "which are not read: save model.state_dict()"),
        ("old.pt", "is not a readable file of torch.save"),
        ("packed.pt", "got a compressed archive"),
        ("cut.pt", "is not a readable file of torch.save"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, weight: str, message: str) -> None:
    torch.save(Network().state_dict(), tmp_path / "model.pt")
    other = Network().state_dict() | {"fc.weight": torch.ones(3, 5)}
    torch.save(dict(sorted(other.items())), tmp_path / "other.pt")
    torch.save(3, tmp_path / "number.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pt")  # a whole module: reading it would execute what it names
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"fc.weight": 1}))
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with (
        zipfile.ZipFile(tmp_path / "model.pt") as source,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    with pytest.raises(InputError, match=re.escape(message)):
        measured(tmp_path, tmp_path / weight)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fc.weight": torch.ones(3, 6), "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="holds a whole module or other objects, which are not read"):
        measured(tmp_path, tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_read_is_not_written_over(tmp_path: Path) -> None:
    torch.save(Network().state_dict(), tmp_path / "model.safetensors")
    options = FileOptions(weight=tmp_path / "model.safetensors:fc.weight", save=tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="another file to write"):
        options.check(tmp_path / "examples.npz")
    both = tmp_path / "both.safetensors"
    with pytest.raises(InputError, match=r"--json with another file than --save .*both"):
        FileOptions(save=both, json=tmp_path / "." / "both.safetensors").check(tmp_path / "examples.npz")
