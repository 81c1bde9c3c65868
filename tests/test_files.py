"""Private files stay private, writes are whole, and every refusal says what to do."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsec.errors import ConfigError
from fedsec.files import (
    check_private_directory,
    make_private_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)

SECRET = b"planted-secret"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def private(path: Path, content: bytes = SECRET) -> Path:
    write_private(path, content)
    return path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private_directory(tmp_path / "ca")
        write_private(tmp_path / "ca" / "key.pem", SECRET)
        write_public(tmp_path / "ca" / "cert.pem", b"public")
    finally:
        os.umask(before)
    assert mode(tmp_path / "ca") == 0o700
    assert mode(tmp_path / "ca" / "key.pem") == 0o600
    assert mode(tmp_path / "ca" / "cert.pem") == 0o644


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(100_000)])
def test_what_is_written_is_read(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / "a", content)
    assert read_private(tmp_path / "a") == content
    write_public(tmp_path / "b", content)
    assert read_public(tmp_path / "b") == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    """The new file is private from its first byte on; the old one is not written into."""
    target = tmp_path / "key.pem"
    target.write_bytes(b"old")
    target.chmod(0o666)
    reader = target.open("rb")
    write_private(target, SECRET)
    with reader:
        assert reader.read() == b"old"
    assert mode(target) == 0o600
    assert target.read_bytes() == SECRET


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = private(tmp_path / "key.pem")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"cannot write .*key.pem: No space left on device"):
        write_private(target, b"new")
    assert target.read_bytes() == SECRET
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_content_is_on_the_disk_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is: sync the file, rename it, sync the directory."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def spy_sync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"sync {kind}")
        sync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        assert self.read_bytes() == SECRET
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_private(tmp_path / "key.pem", SECRET)
    assert steps == ["sync file", "rename", "sync directory"]


def test_readers_see_the_old_content_or_the_new_and_nothing_between(tmp_path: Path) -> None:
    target = tmp_path / "state"
    contents = [bytes([letter]) * 200_000 for letter in b"abc"]
    write_private(target, contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_private(target, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_private(target) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(contents)
    assert len(seen) > 1


@pytest.mark.parametrize("write", [write_private, write_public])
def test_a_link_in_the_target_s_place_is_refused(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    link = tmp_path / "key.pem"
    for target in (victim, tmp_path / "nowhere"):
        link.symlink_to(target)
        with pytest.raises(ConfigError, match=r"key.pem is a link or no file; remove it first"):
            write(link, SECRET)
        link.unlink()
    assert victim.read_bytes() == b"untouched"


def test_a_directory_in_the_target_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()
    with pytest.raises(ConfigError, match="is a link or no file"):
        write_private(tmp_path / "key.pem", SECRET)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*nowhere/key.pem: No such file"):
        write_private(tmp_path / "nowhere" / "key.pem", SECRET)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_private_file_open_to_others_is_refused(tmp_path: Path, bits: int) -> None:
    target = private(tmp_path / "key.pem")
    target.chmod(bits)
    with pytest.raises(ConfigError) as caught:
        read_private(target)
    sentence = str(caught.value)
    assert f"mode {bits:04o}" in sentence
    assert sentence.endswith(f": chmod 600 {target}")
    assert SECRET.decode() not in sentence
    target.chmod(0o400)  # tighter than needed is fine
    assert read_private(target) == SECRET


def test_a_private_file_behind_a_link_is_refused(tmp_path: Path) -> None:
    target = private(tmp_path / "real.pem")
    link = tmp_path / "key.pem"
    link.symlink_to(target)
    with pytest.raises(ConfigError, match=r"key.pem is a link; put the file itself there"):
        read_private(link)
    write_public(tmp_path / "cert.pem", b"public")
    (tmp_path / "link.pem").symlink_to(tmp_path / "cert.pem")
    assert read_public(tmp_path / "link.pem") == b"public"


def test_a_link_that_comes_in_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "key.pem"
    link.symlink_to(private(tmp_path / "real.pem"))
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    with pytest.raises(ConfigError, match=r"cannot read .*key.pem"):
        read_private(link)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = private(tmp_path / "key.pem")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=rf"belongs to user {owner}, .*chown {owner + 1} "):
        read_private(target)
    with pytest.raises(ConfigError, match=rf"belongs to user {owner}, .*chown {owner + 1} "):
        check_private_directory(tmp_path)


@pytest.mark.parametrize("read", [read_private, read_public])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Callable[[Path], bytes]) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)  # opening one to read would wait for a writer
    with pytest.raises(ConfigError, match="pipe is not a file"):
        read(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"is not a file|Is a directory"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*missing: No such file"):
        read(tmp_path / "missing")


@pytest.mark.parametrize("read", [read_private, read_public])
def test_a_large_file_is_refused(tmp_path: Path, read: Callable[..., bytes]) -> None:
    target = private(tmp_path / "large", b"x" * 1001)
    with pytest.raises(ConfigError, match="large has 1001 bytes, max 1000"):
        read(target, limit=1000)
    assert len(read(target, limit=1001)) == 1001


def test_a_file_that_claims_no_size_is_still_bounded() -> None:
    """Files of the kernel have size 0 and content."""
    with pytest.raises(ConfigError, match="grew over 10 bytes while it was read"):
        read_public(Path("/proc/self/status"), limit=10)


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c"
    make_private_directory(target)
    assert [mode(path) for path in (target, target.parent, target.parent.parent)] == [0o700] * 3
    make_private_directory(target)  # an existing good one is fine


def test_existing_parents_are_left_as_they_are(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    make_private_directory(shared / "mine")
    assert mode(shared) == 0o755
    assert mode(shared / "mine") == 0o700


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o701, 0o720, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, bits: int) -> None:
    target = tmp_path / "ca"
    target.mkdir()
    target.chmod(bits)
    for use in (make_private_directory, check_private_directory):
        with pytest.raises(ConfigError) as caught:
            use(target)
        assert str(caught.value).endswith(f"(mode {bits:04o}): chmod 700 {target}")
    assert mode(target) == bits  # it is the operator's to mend


def test_a_link_or_file_is_no_private_directory(tmp_path: Path) -> None:
    real = tmp_path / "real"
    make_private_directory(real)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    for name in ("link", "dangling", "file"):
        with pytest.raises(ConfigError, match=f"{name} is not a directory, or a link to one"):
            make_private_directory(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot make the directory .*Not a directory"):
        make_private_directory(tmp_path / "file" / "below")


def test_a_missing_directory_is_not_private(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot look at the directory .*No such file"):
        check_private_directory(tmp_path / "missing")
