"""The proxy forwards exactly, cuts exactly where told, stalls and heals."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fedsec.errors import StateError
from fedsec_sim.faultproxy import FaultProxy


@contextmanager
def echo_server() -> Iterator[str]:
    """Yields the address of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            return


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with echo_server() as address, FaultProxy(address) as running:
        yield running


def connect(proxy: FaultProxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def use(proxy: FaultProxy) -> bytes:
    with connect(proxy) as connection:
        return connection.recv(1)


def receive(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := connection.recv(count - len(got))):
        got += data
    return got


def test_bytes_pass_unchanged(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 4000
    with connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(sent,)).start()
        assert receive(connection, len(sent)) == sent
    assert proxy.passed == {"up": len(sent), "down": len(sent)}
    assert (proxy.connections, proxy.cuts) == (1, 0)


def test_a_cut_is_exact_and_happens_once(proxy: FaultProxy) -> None:
    proxy.cut_after(10_000)
    with connect(proxy) as connection:
        connection.sendall(b"x" * 10_000)
        assert len(receive(connection, 10_000)) == 10_000
        connection.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert (proxy.passed["up"], proxy.cuts) == (10_000, 1)
    with connect(proxy) as connection:
        connection.sendall(b"z" * 20_000)
        assert len(receive(connection, 20_000)) == 20_000
    assert proxy.cuts == 1


def test_stall_holds_bytes_and_heal_lets_them_pass(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"before")
        assert receive(connection, 6) == b"before"
        proxy.stall()
        connection.sendall(b"after")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.heal()
        connection.settimeout(5)
        assert receive(connection, 5) == b"after"
    assert proxy.cuts == 0


def test_cut_and_refuse(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"1")
        assert receive(connection, 1) == b"1"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        use(proxy)
    proxy.heal()
    with connect(proxy) as connection:
        connection.sendall(b"2")
        assert receive(connection, 1) == b"2"
    assert proxy.cuts == 2


def test_outside_its_block_it_says_so() -> None:
    with pytest.raises(StateError, match="use it in a `with` block"):
        FaultProxy("127.0.0.1:1").cut()
