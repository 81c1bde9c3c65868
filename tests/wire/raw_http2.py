"""The least of HTTP/2 that makes a gRPC call, for clients that gRPC itself would not be."""

import socket
import ssl
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_CANCEL = (8).to_bytes(4, "big")
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields kind and payload of every whole frame."""
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
        yield data[3], data[9:end]
        data = data[end:]


def _literal(name: str, value: str) -> bytes:
    """HPACK: a header field without indexing and without Huffman coding."""
    parts = [bytes([len(text)]) + text.encode() for text in (name, value)]
    return b"\x00" + parts[0] + parts[1]


OPENING = PREFACE + frame(_SETTINGS, 0, 0, b"")


def unary_request(method: str, message: bytes, host: str) -> bytes:
    """Returns all that a client sends for one unary call on a new connection."""
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    return b"".join((OPENING, headers(1, method, host), frame(_DATA, _END_STREAM, 1, body)))


def headers(stream: int, method: str, host: str) -> bytes:
    """Returns the frame that begins a call; streams of clients have odd numbers."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": host,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(_literal(name, value) for name, value in fields.items())
    return frame(_HEADERS, _END_HEADERS, stream, block)


def reset(stream: int) -> bytes:
    """Returns the frame with which a client gives a call up."""
    return frame(_RST_STREAM, 0, stream, _CANCEL)


def ping(number: int) -> bytes:
    """Returns a frame that the other end must answer."""
    return frame(_PING, 0, 0, number.to_bytes(8, "big"))


def call_with(context: ssl.SSLContext, port: int, method: str) -> tuple[str | None, bytes]:
    """Makes a unary call over Python's own TLS; returns TLS version and all that was answered."""
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        version = tls.version()
        tls.sendall(unary_request(method, b"x", "localhost"))
        answered = b""
        while not _ends_stream_1(answered):
            data = tls.recv(65536)
            if not data:
                break
            answered += data
        return version, answered


def _ends_stream_1(data: bytes) -> bool:
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
        if len(data) >= 9 + length and stream == 1 and kind == _HEADERS and flags & _END_STREAM:
            return True
        data = data[9 + length :]
    return False
