"""Which files a table names. Light: the node's agent passes by."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedsec.data.settings import CONNECTORS, Columns, Connector, Folder, Idx, Npz
from fedsec.errors import DataError

MAX_FILES = 100_000


def find_files(names: Iterable[str], directory: Path) -> list[Path]:
    """Returns the files that `names` stand for: in the order of `names`, those of a pattern sorted.

    Args:
        names: Absolute or relative to `directory`; ``*``, ``?`` and ``[`` make a pattern.
        directory: Where relative names begin.

    Raises:
        DataError: A name stands for no file, or a file is named twice.
    """
    found: list[Path] = []
    for name in names:
        path = directory / Path(name).expanduser()
        if any(letter in name for letter in "*?["):
            matches = sorted(each for each in _glob(path) if each.is_file())
            if not matches:
                raise DataError(f"files: nothing matches {path}")
            found += matches
        else:
            found.append(check_file(path))
    if len(found) > MAX_FILES:
        raise DataError(f"files: {len(found)} files, max {MAX_FILES}")
    twice = _repeated(found)
    if twice is not None:
        raise DataError(f"files: {twice} is named twice; its records would count twice")
    return found


def anchored(options: Mapping[str, object], directory: Path) -> dict[str, object]:
    """Returns a table ``[data.NAME]`` in which it is absolute where relative names begin.

    Args:
        options: Of the table.
        directory: Of whom the settings belong to.
    """
    found = dict(options)
    written = found.get("directory", ".")
    # What else it may be is refused where the table is checked.
    if options.get("connector") in CONNECTORS and isinstance(written, str):
        found["directory"] = str((directory / Path(written).expanduser()).absolute())
    return found


def named_files(settings: Connector) -> list[Path]:
    """Returns the files of a data set; none where the connector brings its own.

    Raises:
        DataError: As of `find_files`.
    """
    match settings:
        case Columns():
            return find_files(settings.files, Path(settings.directory))
        case Idx():
            names = [settings.images, settings.labels, settings.test_images, settings.test_labels]
            return find_files([name for name in names if name], Path(settings.directory))
        case Npz():
            return find_files([settings.file], Path(settings.directory))
        case Folder():
            folder = Path(settings.directory, Path(settings.folder).expanduser())
            return [path for name in settings.classes for path in _images_in(folder / name)]
    return []


def _images_in(folder: Path) -> list[Path]:
    """Returns the files in the folder of one class, sorted."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}, which `classes` names")
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")


def check_file(path: Path) -> Path:
    """Returns `path` if a file is there.

    Raises:
        DataError: There is none, or it is a directory; says which names come close.
    """
    if path.is_dir():
        raise DataError(f"{path} is a directory; name the files in it, e.g. {path / '*.csv'}")
    if not path.is_file():
        near: list[str] = []
        if path.parent.is_dir():
            others = [each.name for each in path.parent.iterdir()]
            near = difflib.get_close_matches(path.name, others, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        where = "" if path.parent.is_dir() else f"; there is no directory {path.parent} either"
        raise DataError(f"there is no file {path}{guess}{where}")
    return path


def _glob(path: Path) -> Iterable[Path]:
    fixed = path.anchor or "."
    return Path(fixed).glob(str(path.relative_to(path.anchor)))


def _repeated(paths: Sequence[Path]) -> Path | None:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
    return None
