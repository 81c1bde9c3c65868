"""Images from MNIST's form, numpy's archives and folders: the pixels that were put in, or words."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedsec.data.reading import read
from fedsec.data.records import Records
from fedsec.errors import ConfigError, DataError
from fedsec.plan import Data
from fedsec.tasks.images import Images

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 3


def records(directory: Path, **keys: Any) -> Records:
    return read({"directory": str(directory), **keys})[1]


def refusal(directory: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        records(directory, **keys)
    return str(caught.value)


def idx(array: np.typing.NDArray[Any], code: int = 8) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + shape + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").write_bytes(idx(PIXELS))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(LABELS)))
    return {"directory": tmp_path, "connector": "idx", "images": "images", "labels": "labels.gz"}


def test_mnists_form(mnist: dict[str, Any]) -> None:
    found = records(**mnist)
    assert found.inputs.shape == (20, 1, 6, 5)
    np.testing.assert_allclose(found.inputs[:, 0] * 255, PIXELS, atol=1e-4)
    np.testing.assert_array_equal(found.targets, LABELS)
    assert found.test is None


def test_files_of_their_own_for_tests(mnist: dict[str, Any]) -> None:
    found = records(**mnist, test_images="images", test_labels="labels.gz")
    assert found.test is not None
    assert found.test.tolist() == [False] * 20 + [True] * 20
    assert "test_images: is given together" in refusal(**mnist, test_images="images")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\3\4no images", "images is not in the form of MNIST's files (IDX)"),
        (b"", "images cannot be read: unpack requires a buffer of 4 bytes"),
        (idx(PIXELS)[:-1], "images announces 600 bytes for (20, 6, 5) and holds 599"),
        (idx(PIXELS) + b"x", "images announces 600 bytes for (20, 6, 5) and holds at least 601"),
        (gzip.compress(idx(PIXELS))[:-20], "images cannot be read: Compressed file ended"),
        (idx(PIXELS[:5]), "5 images but labels of shape (20,)"),
        (idx(PIXELS[0]), "images of uint8 (6, 5): (n, height, width)"),
        (struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**15, 2**15), "and holds 0"),
    ],
)
def test_a_file_that_is_not_what_it_says(
    mnist: dict[str, Any], content: bytes, sentence: str
) -> None:
    Path(mnist["directory"], "images").write_bytes(content)
    assert sentence in refusal(**mnist)


def test_archives(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=PIXELS, y=LABELS, colour=colour, real=PIXELS / 7)
    options: dict[str, Any] = {"directory": tmp_path, "connector": "npz", "file": "a.npz"}
    np.testing.assert_allclose(records(**options).inputs[:, 0] * 255, PIXELS, atol=1e-4)
    found = records(**options, images="colour")
    np.testing.assert_allclose(found.inputs[3, 2] * 255, colour[3, :, :, 2], atol=1e-4)
    assert records(**options, images="colour", channels="first").inputs.shape == (20, 6, 5, 3)
    np.testing.assert_allclose(
        records(**options, images="real").inputs[:, 0] * 7, PIXELS, rtol=1e-6
    )
    split = records(**options, test_images="x", test_labels="y").test
    assert split is not None
    assert split.sum() == 20
    assert 'a.npz has no array "z"; it has: x, y' in refusal(**options, images="z")
    assert "differ in their size" in refusal(**options, test_images="colour", test_labels="y")


def test_what_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"directory": tmp_path, "connector": "npz", "file": "a.npz"}
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object), y=LABELS)
    assert "a.npz cannot be read: Object arrays cannot be loaded" in refusal(**options)
    np.savez(tmp_path / "a.npz", x=PIXELS, y=np.array(["a"] * 20))
    assert "labels are <U1; numbers are expected" in refusal(**options)
    real = PIXELS.astype(np.float64)
    real[0, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=real, y=LABELS)
    assert refusal(**options) == "an image holds NaN or infinity"
    (tmp_path / "a.npz").write_bytes(b"nothing")
    assert "a.npz cannot be read" in refusal(**options)
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, PIXELS)
    assert "is one array; an archive" in refusal(**options)


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    for name, count in (("cat", 3), ("dog", 2)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "pets" / name / f"{number}.png"
            Image.fromarray(PIXELS[number]).save(path)
    return {
        "directory": tmp_path,
        "connector": "folder",
        "folder": "pets",
        "classes": ["dog", "cat"],
    }


def test_a_folder_per_class(folder: dict[str, Any]) -> None:
    found = records(**folder)
    np.testing.assert_array_equal(found.targets, [0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.inputs[2, 0] * 255, PIXELS[0], atol=1e-4)
    assert records(**folder, colour="rgb", size=[8, 4]).inputs.shape == (5, 3, 8, 4)


def test_images_that_cannot_be_used_are_named(folder: dict[str, Any]) -> None:
    pets = Path(folder["directory"], "pets")
    Image.fromarray(PIXELS[0, :4]).save(pets / "dog" / "2.png")
    (pets / "cat" / "9.png").write_bytes(b"\x89PNG broken")
    told = refusal(**folder)
    assert "dog/2.png has the size 4 x 5, the first image has 6 x 5" in told
    assert "cat/9.png cannot be read as an image (UnidentifiedImageError)" in told
    assert "there is no folder" in refusal(**{**folder, "classes": ["dog", "cow"]})
    assert "classes: names a folder twice" in refusal(**{**folder, "classes": ["dog", "dog"]})
    for path in (*(pets / "dog").iterdir(), *(pets / "cat").iterdir()):
        path.unlink()
    assert refusal(**folder) == "the folders hold no image"


def idat(content: bytes, kind: bytes = b"IDAT") -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def test_what_a_damaged_image_holds_is_not_told(folder: dict[str, Any]) -> None:
    """Pillow's SyntaxError quotes the bytes that stand where a chunk's name is due."""
    path = Path(folder["directory"], "pets", "cat", "1.png")
    head = b"\x89PNG\r\n\x1a\n" + idat(struct.pack(">IIBBBBB", 5, 6, 8, 0, 0, 0, 0), b"IHDR")
    packed = zlib.compress(RNG.integers(0, 256, 6 * 6, dtype=np.uint8).tobytes())
    path.write_bytes(head + idat(packed[:10]) + idat(packed[10:], b"\1Bob"))
    assert refusal(**folder) == "cat/1.png cannot be read as an image (SyntaxError)"


def test_any_exception_of_a_decoder_names_the_file_alone(
    folder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (EOFError, struct.error, OSError, NotImplementedError, RecursionError, KeyError):

        def failing(*_: object, kind: type[Exception] = kind) -> None:
            raise kind("Bob, 41")

        monkeypatch.setattr(Image.Image, "convert", failing)
        told = refusal(**folder)
        assert f"dog/0.png cannot be read as an image ({kind.__name__})" in told
        assert "Bob" not in told


def test_a_gzipped_file_that_is_damaged_inside(mnist: dict[str, Any]) -> None:
    packed = bytearray(gzip.compress(idx(PIXELS)))
    packed[10:14] = b"\xff\xff\xff\xff"
    Path(mnist["directory"], "images").write_bytes(packed)
    assert refusal(**mnist) == "images cannot be read (error)"  # of zlib


@pytest.mark.parametrize(
    ("at", "value", "kind"), [(8, 1, "RuntimeError"), (10, 99, "NotImplementedError")]
)
def test_an_archive_that_zipfile_cannot_open(
    tmp_path: Path, at: int, value: int, kind: str
) -> None:
    """Encrypted, or packed in a way of its own: both stand in the list at the end of the file."""
    np.savez(tmp_path / "a.npz", x=PIXELS, y=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + at] = content[6 + at - 8] = value
    (tmp_path / "a.npz").write_bytes(content)
    told = refusal(tmp_path, connector="npz", file="a.npz")
    assert told == f"a.npz cannot be read ({kind})"


def test_the_task_takes_images_of_the_plans_shape(mnist: dict[str, Any]) -> None:
    task = Images(Data(shape=[1, 6, 5], classes=3, scaling="site"))
    loaded = task.load({**mnist, "directory": str(mnist["directory"])})
    assert loaded.train.inputs.shape[1:] == (1, 6, 5)
    assert float(loaded.train.inputs.mean()) == pytest.approx(0, abs=1e-5)
    for options in ({}, {"model": "mlp"}):
        outputs = task.make_model(options, 1)(loaded.test.inputs)
        assert outputs.shape == (len(loaded.test), 3)
        assert set(task.metrics(outputs.detach(), loaded.test.targets)) >= {"accuracy", "f1"}
        assert torch.isfinite(task.loss(outputs, loaded.test.targets))
    other = Images(Data(shape=[3, 6, 5], classes=3, scaling="none"))
    with pytest.raises(
        ConfigError, match=r"has records of 1 x 6 x 5, the plan's data.shape is 3 x 6"
    ):
        other.load({**mnist, "directory": str(mnist["directory"])})
    with pytest.raises(ConfigError, match=r"the CNN needs sides >= 4"):
        Images(Data(shape=[1, 3, 9], classes=3, scaling="none")).make_model({}, 1)
