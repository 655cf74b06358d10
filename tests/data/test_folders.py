"""Image folders, on disk and in archives: the images that torchvision's ImageFolder finds, and a word on all others."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import dataset_files as write
from PIL import Image

from neuralcollapse import InputError
from neuralcollapse import data as datasets

ENDINGS = {
    **{".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".JPG": "JPEG", ".png": "PNG", ".PNG": "PNG"},
    **{".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".TIF": "TIFF"},
    **{".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM"},
}
FORMS = ["set", "set.tar", "set.tar.gz", "set.tar.bz2"]


def stored(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder, or in an archive with a folder of its own."""
    if path.suffix:
        return write.write_archive(path, files, prefix="./top/")
    return write.write_folder(path, files)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        datasets.load("folder", path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def shades(data: datasets.Dataset) -> list[int]:
    return data.train.images[:, 0, 0, 0].tolist()


def as_torchvision_does(root: Path) -> list[tuple[str, int]]:
    """What `torchvision.datasets.ImageFolder(root / "train").samples` holds, as its documentation and source say."""
    found = []
    folder = root / "train"
    for label, name in enumerate(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())):
        for above, _, files in sorted(os.walk(folder / name, followlinks=True)):
            found += [(os.path.join(above, file), label) for file in sorted(files)]
    return found


DEEP = ["a/x.png", "a/b/x.png", "a/b/c/x.png", "a/b-c/x.png", "a/b/0.png", "b/y/1.png", "b/0.png", "b/y.png", "c/0.png"]


@pytest.mark.parametrize("form", FORMS)
def test_deep_folders_are_read_in_torchvisions_order(tmp_path: Path, form: str) -> None:
    files = {f"{half}/{name}": write.picture(shade) for half in ("train", "test") for shade, name in enumerate(DEEP)}
    expected = as_torchvision_does(write.write_folder(tmp_path / "disk", files))
    data = datasets.load("folder", stored(tmp_path / form, files))
    order = [DEEP.index(str(Path(name).relative_to(tmp_path / "disk/train"))) for name, _ in expected]
    assert shades(data) == order and data.train.labels.tolist() == [label for _, label in expected]
    assert data.class_names == ("a", "b", "c")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", FORMS[:2])
def test_every_ending_is_read(tmp_path: Path, form: str, ending: str) -> None:
    made = io.BytesIO()
    mode = {".pbm": "1", ".pgm": "L"}.get(ending, "RGB")
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(made, ENDINGS[ending])
    files = write.pictures(2)
    files = {name.replace(".png", ending) if "/bee/" in name else name: content for name, content in files.items()}
    files = {name: made.getvalue() if "/bee/" in name else content for name, content in files.items()}
    data = datasets.load("folder", stored(tmp_path / form, files))
    assert data.class_names == ("ant", "bee") and shades(data) == [0, 1, 255, 255]


LEFT_OUT = {
    "train/.ipynb_checkpoints/0-checkpoint.png": "1 hidden (train/.ipynb_checkpoints",
    "train/ant/.thumbnails/0.png": "1 hidden (train/ant/.thumbnails",
    "train/ant/._0.png": "1 hidden (train/ant/._0.png)",
    "train/ant/notes.txt": "1 without the ending of an image (train/ant/notes.txt)",
    "test/bee/deep/0.avif": "1 without the ending of an image (test/bee/deep/0.avif)",
    "train/0.png": "1 in no folder of a class (train/0.png)",
}


@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_counted_and_named(tmp_path: Path, form: str, name: str) -> None:
    path = stored(tmp_path / form, write.pictures(2) | {name: write.picture(9)})
    with pytest.warns(UserWarning, match="left out") as said:
        data = datasets.load("folder", path)
    assert len(said) == 1 and str(path) in str(said[0].message) and LEFT_OUT[name] in str(said[0].message)
    assert data.class_names == ("ant", "bee") and shades(data) == [0, 1, 10, 11]
    with pytest.warns(UserWarning, match="left out"):
        found = datasets.available(path)[-1]
    assert found.train == (2, 2) and not found.problem


def test_many_of_a_kind_are_one_line(tmp_path: Path) -> None:
    extra = {f"train/ant/{number}.txt": b"" for number in range(1200)} | {"test/bee/.a.png": b""}
    with pytest.warns(UserWarning, match="left out 1 hidden .*, 1,200 without the ending .* …") as said:
        datasets.load("folder", write.write_folder(tmp_path, write.pictures() | extra))
    assert len(str(said[0].message)) < 400


def test_hidden_files_of_the_system_are_not_worth_a_word(tmp_path: Path) -> None:
    extra = {"train/.DS_Store": b"", "train/ant/.DS_Store": b"", "train/ant/.directory": b""}
    assert datasets.load("folder", write.write_folder(tmp_path, write.pictures(2) | extra)).class_names == (
        "ant",
        "bee",
    )


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("extra", ["cat/notes.txt", "cat/.0.png", "cat/deep/0.svg"])
def test_a_class_without_images_is_named(tmp_path: Path, form: str, half: str, extra: str) -> None:
    files = write.pictures(2, ("ant", "bee", "dog")) | {f"{half}/{extra}": write.picture(1)}
    text = refused(stored(tmp_path / form, files))
    assert f"{half}/cat has none" in text and (".0" in extra or f"{half}/{extra}" in text)


def test_an_empty_folder_is_a_class_without_images(tmp_path: Path) -> None:
    path = write.write_folder(tmp_path / "set", write.pictures(2))
    (path / "train/cat").mkdir()
    assert "train/cat has none" in refused(path)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(path, "set")
    assert "train/cat has none" in refused(tmp_path / "set.tar")


def linked(path: Path, name: str, target: str) -> Path:
    """The folder, or an archive of it, with a symbolic link more."""
    folder = write.write_folder(path.parent / "linked", write.pictures(2))
    (folder / name).parent.mkdir(exist_ok=True)
    os.symlink(target, folder / name)
    if not path.suffix:
        return folder
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "set")
    return path


@pytest.mark.parametrize("form", ["set", "set.tar"])
@pytest.mark.parametrize("target", ["/gone/0.png", "gone.png", "9.png", "../bee/gone.png"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, form: str, target: str) -> None:
    path = linked(tmp_path / form, "train/ant/9.png", target)
    with pytest.warns(UserWarning, match=r"left out 1 leading to no file \(train/ant/9.png\)"):
        assert shades(datasets.load("folder", path)) == [0, 1, 10, 11]


@pytest.mark.parametrize("form", ["set", "set.tar"])
@pytest.mark.parametrize("target", ["0000.png", "../bee/0000.png", "../../test/ant/0000.png"])
def test_a_link_to_an_image_is_that_image(tmp_path: Path, form: str, target: str) -> None:
    data = datasets.load("folder", linked(tmp_path / form, "train/ant/9.png", target))
    assert shades(data) == [0, 1, {"0000.png": 0, "../bee/0000.png": 10}.get(target, 100), 10, 11]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write.write_folder(tmp_path / "elsewhere", {"5.png": write.picture(50)})
    path = linked(tmp_path / "set", "train/ant/deep", str(tmp_path / "elsewhere"))
    assert shades(datasets.load("folder", path)) == [0, 1, 50, 10, 11]
    os.symlink("..", path / "train/bee/up")
    with pytest.warns(UserWarning, match=r"left out 1 leading back to a folder above \(train/bee/up\)"):
        assert shades(datasets.load("folder", path)) == [0, 1, 50, 10, 11]


def test_links_in_an_archive_that_go_round_end(tmp_path: Path) -> None:
    path = write.write_archive(tmp_path / "a.tar", write.pictures(2))
    with tarfile.open(path, "a") as archive:
        for name, target, kind in (
            ("train/ant/a.png", "b.png", tarfile.SYMTYPE),
            ("train/ant/b.png", "a.png", tarfile.SYMTYPE),
            ("train/ant/c.png", "train/ant/c.png", tarfile.LNKTYPE),
            ("train/ant/d.png", "train/bee/0000.png", tarfile.LNKTYPE),
            ("train/ant/e.png", "../../../../etc/passwd", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    with pytest.warns(UserWarning, match=r"left out 4 leading to no file"):
        assert shades(datasets.load("folder", path)) == [0, 1, 10, 10, 11]


def test_of_two_members_with_one_name_the_later_counts(tmp_path: Path) -> None:
    """As when the archive is extracted, which both halves of a set updated by `tar --append` rely on."""
    path = write.write_archive(tmp_path / "a.tar", write.pictures(2))
    member, content = tarfile.TarInfo("train/ant/0000.png"), write.picture(77)
    member.size = len(content)
    with tarfile.open(path, "a") as archive:
        archive.addfile(member, io.BytesIO(content))
    assert shades(datasets.load("folder", path)) == [77, 1, 10, 11]


@pytest.mark.parametrize("form", FORMS[:2])
def test_classes_called_train_and_test(tmp_path: Path, form: str) -> None:
    data = datasets.load("folder", stored(tmp_path / form, write.pictures(2, ("test", "train"))))
    assert data.class_names == ("test", "train") and shades(data) == [0, 1, 10, 11]


def test_an_archive_with_two_data_sets_is_refused(tmp_path: Path) -> None:
    files = {f"{top}/{name}": content for top in ("a", "b") for name, content in write.pictures(2).items()}
    assert "a and b" in refused(write.write_archive(tmp_path / "a.tar", files))
    outer = write.pictures(2) | {f"old/{name}": write.picture(3) for name in write.pictures(2)}
    assert shades(datasets.load("folder", write.write_archive(tmp_path / "b.tar", outer))) == [0, 1, 10, 11]


@pytest.mark.parametrize("what", ["header", "cut", "no end"])
def test_a_damaged_header_never_makes_a_set_smaller(tmp_path: Path, what: str) -> None:
    """tarfile takes a header whose sum is wrong for the end of the archive."""
    path = write.write_archive(tmp_path / "a.tar", write.pictures(3))
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        start = archive.getmembers()[7].offset
        end = archive.getmembers()[-1].offset_data + 512
    if what == "header":
        content[start + 5] ^= 1
    path.write_bytes(content[: {"header": len(content), "cut": start, "no end": end}[what]])
    assert "damaged or incomplete" in refused(path)


@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_a_flipped_bit_of_a_png_is_found(tmp_path: Path, position: float) -> None:
    made = io.BytesIO()
    Image.fromarray(write.random_images(1, 8, 8, 3)[0]).save(made, "PNG")
    content = bytearray(made.getvalue())
    content[int(position * len(content))] ^= 4
    path = write.write_folder(tmp_path, write.pictures(2) | {"train/ant/0001.png": bytes(content)})
    assert "train/ant/0001.png is damaged" in refused(path)


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_file_far_larger_than_an_image_is_not_read(tmp_path: Path, form: str) -> None:
    path = stored(tmp_path / form, write.pictures(2) | {"train/ant/0001.png": bytes((16 << 20) + 1)})
    said = refused(path)
    assert "0001.png" in said and ("16 MiB" in said or "16,777,216 bytes" in said)


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    made = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (shade,) * 3) for shade in (255, 0)]
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:])
    path = write.write_folder(tmp_path, write.pictures(2) | {"train/ant/0001.gif": made.getvalue()})
    assert np.unique(datasets.load("folder", path).train.images[1]).tolist() == [255]


@pytest.mark.skipif(os.name != "posix", reason="needs names of any bytes")
def test_names_that_cannot_be_shown_are_escaped(tmp_path: Path) -> None:
    files = write.pictures(2, ("ant", "bee\udcff\n")) | {"train/ant/\udcfe.txt": b""}
    path = write.write_folder(tmp_path / "set\udcff", files)
    with pytest.warns(UserWarning, match=r"left out 1 without the ending of an image \(train/ant/\\udcfe.txt\)"):
        data = datasets.load("folder", path)
    assert data.class_names == ("ant", "bee\\udcff\\n") and data.title == "set\\udcff"
    (path / "train/cat\udcfd").mkdir()
    found = datasets.available(path)[-1]
    assert "train/cat\\udcfd has none" in found.problem and found.path.isprintable()
