"""Images with a class each: MNIST's file form, numpy's archives, a folder per class (Pillow).

Grey values and colours of 8 bits become numbers in 0..1; other arrays are taken as they are. Source
of the first form: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedsec.data.files import check_file, named_files
from fedsec.data.problems import Problems, reading
from fedsec.data.records import Records
from fedsec.data.settings import Folder, Idx, Npz
from fedsec.errors import DataError

IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
GZIP = b"\x1f\x8b"
GZIP_RATIO = 1100  # no gzipped byte becomes more
MODES = {"grey": "L", "rgb": "RGB"}
FLAT, DEEP = 3, 4  # dimensions of grey images (n, h, w) and of those with channels

Array = NDArray[Any]


def read_idx(settings: Idx) -> Records:
    """Returns the images of files in MNIST's form.

    Raises:
        DataError: A file is missing, is not in that form, or images and labels differ in number.
    """
    base = Path(settings.directory)
    parts = [(_idx(base, settings.images), _idx(base, settings.labels))]
    if settings.test_images is not None and settings.test_labels is not None:
        parts.append((_idx(base, settings.test_images), _idx(base, settings.test_labels)))
    return _records([(images, labels) for images, labels in parts], channels_last=True)


def _idx(base: Path, name: str) -> Array:
    path = check_file(base / Path(name).expanduser())
    with reading(path.name):
        return _idx_array(path)


def _idx_array(path: Path) -> Array:
    with path.open("rb") as plain:
        zipped = plain.read(2) == GZIP
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            zeros, code, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros or code not in IDX_TYPES or not dimensions:
                raise DataError(f"{path.name} is not in the form of MNIST's files (IDX)")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            kind = np.dtype(IDX_TYPES[code])
            expected = math.prod(shape) * kind.itemsize
            largest = path.stat().st_size * (GZIP_RATIO if zipped else 1)
            content = file.read(min(expected, largest) + 1)  # a header may announce anything
    except (OSError, EOFError, struct.error) as error:
        raise DataError(f"{path.name} cannot be read: {error}") from error
    if len(content) != expected:
        more = "at least " if len(content) > expected else ""
        raise DataError(
            f"{path.name} announces {expected} bytes for {shape} and holds {more}{len(content)}"
        )
    return np.frombuffer(content, kind).reshape(shape)


def read_npz(settings: Npz) -> Records:
    """Returns the images of an archive; nothing in it is unpickled.

    Raises:
        DataError: The file is missing or no archive, or lacks an array.
    """
    path = named_files(settings)[0]
    names = [(settings.images, settings.labels)]
    if settings.test_images is not None and settings.test_labels is not None:
        names.append((settings.test_images, settings.test_labels))
    with reading(path.name):
        pairs = _pairs(path, names)
    return _records(pairs, channels_last=settings.channels == "last")


def _pairs(path: Path, names: list[tuple[str, str]]) -> list[tuple[Array, Array]]:
    try:
        with path.open("rb") as file:
            return _arrays(path.name, np.load(file, allow_pickle=False), names)
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error


def _arrays(file: str, archive: object, names: list[tuple[str, str]]) -> list[tuple[Array, Array]]:
    """Returns the arrays that `names` name, in pairs."""
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{file} is one array; an archive (.npz) of two is expected")
    lacking = [name for pair in names for name in pair if name not in archive.files]
    if lacking:
        there = ", ".join(archive.files)
        raise DataError(f'{file} has no array "{lacking[0]}"; it has: {there}')
    return [(archive[images], archive[labels]) for images, labels in names]


def read_folder(settings: Folder) -> Records:
    """Returns the images of a folder per class, each decoded by Pillow.

    Raises:
        DataError: A folder is missing or an image cannot be read; lists the first of them.
    """
    problems = Problems()
    arrays: list[Array] = []
    labels: list[int] = []
    for path in named_files(settings):
        try:
            with Image.open(path) as image:
                made = image.convert(MODES[settings.colour])
                if settings.size is not None:
                    made = made.resize((settings.size[1], settings.size[0]))
                arrays.append(np.asarray(made))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - each decoder of Pillow raises types of its own
            kind = type(error).__name__
            problems.add(f"{path.parent.name}/{path.name} cannot be read as an image ({kind})")
            continue
        labels.append(settings.classes.index(path.parent.name))
        if arrays[-1].shape != arrays[0].shape:
            problems.add(
                f"{path.parent.name}/{path.name} has the size {_size(arrays[-1])}, the first image "
                f"has {_size(arrays[0])}; `size` brings all to one"
            )
    problems.end()
    if not arrays:
        raise DataError("the folders hold no image")
    return _records([(np.stack(arrays), np.array(labels))], channels_last=True)


def _size(image: Array) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _records(pairs: list[tuple[Array, Array]], *, channels_last: bool) -> Records:
    """Returns the records of one pair of images and labels, or of two: the second for tests."""
    inputs = [_normal(images, channels_last=channels_last) for images, _ in pairs]
    for made, (_, labels) in zip(inputs, pairs, strict=True):
        if labels.ndim != 1 or len(labels) != len(made):
            raise DataError(f"{len(made)} images but labels of shape {labels.shape}")
        if labels.dtype.kind not in "iuf":
            raise DataError(f"labels are {labels.dtype}; numbers are expected")
    if len({made.shape[1:] for made in inputs}) > 1:
        raise DataError("images to train on and for tests differ in their size")
    test = [np.full(len(made), bool(place)) for place, made in enumerate(inputs)]
    return Records(
        inputs=np.concatenate(inputs),
        targets=np.concatenate([labels for _, labels in pairs]).astype(np.float64),
        test=np.concatenate(test) if len(pairs) > 1 else None,
        read=sum(map(len, inputs)),
    )


def _normal(images: Array, *, channels_last: bool) -> NDArray[np.float32]:
    """Returns images (n, channels, height, width); of 8 bits in 0..1."""
    if images.ndim not in {FLAT, DEEP} or images.dtype.kind not in "iuf":
        raise DataError(
            f"images of {images.dtype} {images.shape}: (n, height, width) or, with channels, 4 "
            "dimensions are expected"
        )
    if images.ndim == FLAT:
        images = images[:, None]
    elif channels_last:
        images = np.moveaxis(images, -1, 1)
    eight_bits = images.dtype == np.uint8
    made = np.ascontiguousarray(images, dtype=np.float32)
    if eight_bits:
        made /= 255
    if not np.isfinite(made).all():
        raise DataError("an image holds NaN or infinity")
    return made
