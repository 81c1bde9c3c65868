"""Local frames over real sockets: whole, in order, with their own descriptors, or refused."""

import array
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.local import MAX_FRAME, AsyncLocalSocket, LocalSocket, socket_pair
from tests.wire.descriptors import open_fds

Pair = tuple[LocalSocket, LocalSocket]
AsyncPair = tuple[AsyncLocalSocket, AsyncLocalSocket]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    one, other = socket_pair()
    pair = LocalSocket(one), LocalSocket(other)
    yield pair
    for sock in pair:
        sock.close()


@pytest.fixture(name="raw")
def _raw() -> Iterator[tuple[socket.socket, LocalSocket]]:
    """A peer that may do as it likes, and a receiver."""
    one, other = socket_pair()
    receiver = LocalSocket(other)
    yield one, receiver
    one.close()
    receiver.close()


def rights(*fds: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


def content_of(fds: list[int]) -> list[bytes]:
    found = []
    for fd in fds:
        with Blob.adopt(fd, os.fstat(fd).st_size) as blob:
            found.append(bytes(blob.view()))
    return found


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_frames_arrive_whole_and_in_order(frames: list[bytes]) -> None:
    one, other = (LocalSocket(sock) for sock in socket_pair())
    for frame in frames:
        one.send(frame)
    one.close()
    assert [other.receive(5) for _ in frames] == [(frame, []) for frame in frames]
    assert other.receive(5) is None
    assert other.receive(5) is None
    other.close()


def test_the_largest_frame_goes_and_a_larger_one_does_not(pair: Pair) -> None:
    one, other = pair
    largest = os.urandom(1024) * (MAX_FRAME // 1024)
    sender = threading.Thread(target=one.send, args=(largest,))
    sender.start()
    assert other.receive(10) == (largest, [])
    sender.join()
    with pytest.raises(ProtocolError, match="too-large: a local frame of 4194305 bytes"):
        one.send(largest + b"x")
    one.send(b"and on")
    assert other.receive(5) == (b"and on", [])


def test_a_descriptor_comes_with_its_own_frame(pair: Pair) -> None:
    one, other = pair
    with Blob.write([b"first"]) as first, Blob.write([b"third"]) as third:
        one.send(b"1", [first.fd])
        one.send(b"2")
        one.send(b"", [third.fd])
    got = [other.receive(5) for _ in range(3)]
    assert [frame for frame, _ in filter(None, got)] == [b"1", b"2", b""]
    assert [content_of(fds) for _, fds in filter(None, got)] == [[b"first"], [], [b"third"]]


def test_a_received_descriptor_is_not_inherited(pair: Pair) -> None:
    one, other = pair
    with Blob.write([b"abc"]) as blob:
        one.send(b"1", [blob.fd])
    received = other.receive(5)
    assert received is not None
    assert not os.get_inheritable(received[1][0])
    os.close(received[1][0])


def test_two_descriptors_are_not_sent(pair: Pair) -> None:
    with Blob.write([b"abc"]) as blob, pytest.raises(ProtocolError, match="too-many-descriptors"):
        pair[0].send(b"1", [blob.fd, blob.fd])


@pytest.mark.parametrize("count", [2, 3, 8, 9, 200])
def test_too_many_descriptors_are_closed(
    count: int, raw: tuple[socket.socket, LocalSocket]
) -> None:
    peer, receiver = raw
    with Blob.write([b"abc"]) as blob:
        before = open_fds()
        peer.sendmsg([b"\0\0\0\1x"], rights(*[blob.fd] * count))
        with pytest.raises(ProtocolError, match="more than one descriptor"):
            receiver.receive(5)
        assert open_fds() == before


def test_descriptors_in_pieces_of_the_head_count_together(
    raw: tuple[socket.socket, LocalSocket],
) -> None:
    peer, receiver = raw
    with Blob.write([b"abc"]) as blob:
        before = open_fds()
        for piece in (b"\0", b"\0\0\1x"):
            peer.sendmsg([piece], rights(blob.fd))
        with pytest.raises(ProtocolError, match="more than one descriptor"):
            receiver.receive(5)
        assert open_fds() == before


def test_a_descriptor_inside_a_payload_is_dropped(raw: tuple[socket.socket, LocalSocket]) -> None:
    peer, receiver = raw
    with Blob.write([b"abc"]) as blob:
        before = open_fds()
        peer.send(b"\0\0\0\2x")
        peer.sendmsg([b"y"], rights(blob.fd))
        peer.send(b"\0\0\0\1z")
        assert receiver.receive(5) == (b"xy", [])
        assert receiver.receive(5) == (b"z", [])
        assert open_fds() == before


def test_a_frame_in_single_bytes_is_put_together(raw: tuple[socket.socket, LocalSocket]) -> None:
    peer, receiver = raw
    for byte in b"\0\0\0\3abc\0\0\0\0":
        peer.send(bytes([byte]))
    assert receiver.receive(5) == (b"abc", [])
    assert receiver.receive(5) == (b"", [])


def test_an_announced_giant_is_refused_before_memory_is_taken(
    raw: tuple[socket.socket, LocalSocket],
) -> None:
    peer, receiver = raw
    with Blob.write([b"abc"]) as blob:
        before = open_fds()
        peer.sendmsg([b"\xff\xff\xff\xff"], rights(blob.fd))
        with pytest.raises(ProtocolError, match="too-large: a local frame of 4294967295 bytes"):
            receiver.receive(5)
        assert open_fds() == before


@pytest.mark.parametrize("sent", [b"\0", b"\0\0\0", b"\0\0\0\5", b"\0\0\0\5abcd"])
def test_an_end_in_mid_frame_is_told_from_a_clean_one(
    sent: bytes, raw: tuple[socket.socket, LocalSocket]
) -> None:
    peer, receiver = raw
    with Blob.write([b"abc"]) as blob:
        before = open_fds()
        peer.sendmsg([sent], rights(blob.fd))
        peer.close()
        with pytest.raises(ProtocolError, match="cut-frame"):
            receiver.receive(5)
        assert open_fds() == before - 1  # the peer's own end


def test_what_arrived_before_a_timeout_is_kept(raw: tuple[socket.socket, LocalSocket]) -> None:
    peer, receiver = raw
    with Blob.write([b"kept"]) as blob:
        peer.sendmsg([b"\0\0"], rights(blob.fd))
    for rest in (b"\0\3a", b"bc"):
        with pytest.raises(TimeoutError, match="no frame within 0"):
            receiver.receive(0)
        peer.send(rest)
    frame, fds = receiver.receive(0) or (b"", [])
    assert (frame, content_of(fds)) == (b"abc", [b"kept"])


def test_frames_of_many_threads_do_not_mix(pair: Pair) -> None:
    one, other = pair

    def send(letter: int) -> None:
        for size in (1, 300_000, 7, 70_000):
            one.send(bytes([letter]) * size)

    threads = [threading.Thread(target=send, args=(letter,)) for letter in range(5)]
    for thread in threads:
        thread.start()
    got: dict[int, list[int]] = {}
    for _ in range(20):
        frame, _ = other.receive(10) or (b"", [])
        assert frame == frame[:1] * len(frame)
        got.setdefault(frame[0], []).append(len(frame))
    for thread in threads:
        thread.join()
    assert got == {letter: [1, 300_000, 7, 70_000] for letter in range(5)}


def test_a_send_to_nobody_is_a_broken_pipe(pair: Pair) -> None:
    one, other = pair
    one.send(b"never read")
    other.close()
    with pytest.raises(BrokenPipeError, match="is gone"):
        one.send(b"x")
    assert one.receive(5) is None  # the peer left without reading: an end all the same
    one.close()
    with pytest.raises(BrokenPipeError, match="was closed"):
        one.send(b"x")
    assert one.receive(5) is None


def test_closing_wakes_a_receiver_in_another_thread(pair: Pair) -> None:
    got: list[object] = ["still waiting"]
    started = threading.Event()

    def receive() -> None:
        started.set()
        got[0] = pair[1].receive(30)

    thread = threading.Thread(target=receive)
    thread.start()
    started.wait(5)
    pair[1].close()
    thread.join(5)
    assert got == [None]


def test_over_a_process_border() -> None:
    here, there = socket_pair()
    program = (
        "import socket, sys\n"
        "from fedsec.wire.local import LocalSocket\n"
        "from fedsec.wire.blobs import Blob\n"
        "peer = LocalSocket(socket.socket(fileno=int(sys.argv[1])))\n"
        "frame, (fd,) = peer.receive(30)\n"
        "with Blob.adopt(fd, int(frame)) as blob:\n"
        "    answer = bytes(blob.view())[::-1]\n"
        "with Blob.write([answer]) as blob:\n"
        "    peer.send(b'done', [blob.fd])\n"
        "assert 'numpy' not in sys.modules and 'flwr' not in sys.modules\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(there.fileno())], pass_fds=[there.fileno()]
    ) as child:
        there.close()
        sock = LocalSocket(here)
        with Blob.write([b"across"]) as blob:
            sock.send(b"6", [blob.fd])
        frame, fds = sock.receive(30) or (b"", [])
        assert (frame, content_of(fds)) == (b"done", [b"ssorca"])
        assert sock.receive(30) is None
        sock.close()
    assert child.returncode == 0
