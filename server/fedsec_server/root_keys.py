"""The search for a root key where none may lie: under the coordinator's directory.

Whoever breaks into the coordinator can make certificates until its issuing authorities are
replaced; with the root's key they could replace the authorities themselves.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
)

from fedsec.errors import ConfigError
from fedsec.files import read_public
from fedsec.identity.authorities import load_certificate
from fedsec_server.layout import Layout

MAX_ENTRIES = 500_000  # files and directories that are looked at
MAX_KEY_FILE = 256 << 10  # bytes; no file that holds a key is larger

_PEM_BEGIN = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_PEM_END = b"-----END "
_DER_SEQUENCE = b"\x30"
_MAX_DER = 8 << 10
# PFX ::= SEQUENCE { version INTEGER 3, authSafe SEQUENCE ... }
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x7f]|\x80|\x81.|\x82..|\x83...)\x02\x01\x03\x30", re.DOTALL)


def refuse_root_key(directory: Path) -> None:
    """Raises if a key under the coordinator's directory is the root's, or may be.

    Refused: a private key that belongs to the root's certificate; any key of the root's kind (EC
    P-384); any encrypted key and key container, since the coordinator's own keys are neither and
    nobody can see what is in it. Of links to directories only the files right there are looked at.

    Raises:
        ConfigError: Names the file and says what to do; or there are over 500,000 entries.
    """
    root = load_certificate(read_public(Layout(directory).root_certificate)).public_key()
    for path in _files(directory):
        found = _suspicion(path, root)
        if found:
            raise ConfigError(
                f"{path} {found}. The root's key must lie apart from the coordinator, so that who "
                f"breaks in here cannot make authorities. Move it out of {directory}, to where "
                "the coordinator's user cannot read it, then start again"
            )


def _files(directory: Path) -> Iterator[Path]:
    """Gives every regular file and link to one, in no particular order."""
    entries = 0
    waiting = [(directory, True)]
    while waiting:
        here, descend = waiting.pop()
        for entry in _scan(here):
            entries += 1
            if entries > MAX_ENTRIES:
                raise ConfigError(
                    f"{directory} holds over {MAX_ENTRIES} files; too many to make sure that no "
                    "root key is among them. Move old runs away"
                )
            with suppress(OSError):  # a link in a circle leads to no key
                if entry.is_dir() and descend:
                    waiting.append((Path(entry.path), not entry.is_symlink()))
                elif entry.is_file():
                    yield Path(entry.path)


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise ConfigError(f"cannot look into {directory}: {error.strerror}") from error


def _suspicion(path: Path, root: PublicKeyTypes) -> str:
    """Returns what is wrong with the file, "" if nothing."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE + 1)
    except FileNotFoundError:
        return ""  # gone since
    except OSError as error:
        return f"cannot be read ({error.strerror}), so it may be the root's key"
    if len(content) > MAX_KEY_FILE:
        return ""
    return next((found for key in _keys(content) if (found := _judge(key, root))), "")


def _keys(content: bytes) -> Iterator[PrivateKeyTypes | str]:
    """Gives every private key in a file, or what stands in the way of reading it."""
    for begin in _PEM_BEGIN.finditer(content):
        end = content.find(_PEM_END, begin.end())
        if end < 0:
            break  # cut off; no program reads such a key
        close = content.find(b"-----", end + len(_PEM_END))
        yield _load_pem(content[begin.start() : close + 5])
    if _PKCS12.match(content):
        yield "is a key container (PKCS #12)"
    elif content[:1] == _DER_SEQUENCE and len(content) <= _MAX_DER:
        yield from _load_der(content)


def _judge(key: PrivateKeyTypes | str, root: PublicKeyTypes) -> str:
    if isinstance(key, str):
        return key
    if key.public_key() == root:
        return "is the private key of the federation's root"
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return "is a private key of the kind that roots have (EC P-384)"
    return ""


def _load_pem(block: bytes) -> PrivateKeyTypes | str:
    """Returns the key of a PEM block, or what is wrong with it."""
    load = load_ssh_private_key if b"OPENSSH" in block[:40] else load_pem_private_key
    try:
        return load(block, None)
    except TypeError:
        return "holds an encrypted private key"
    except (ValueError, UnsupportedAlgorithm):
        return "holds a private key that cannot be looked into"


def _load_der(content: bytes) -> list[PrivateKeyTypes | str]:
    """Returns the key that the bytes are, or what is wrong with it; nothing if they are no key."""
    try:
        return [load_der_private_key(content, None)]
    except TypeError:
        return ["is an encrypted private key"]
    except (ValueError, UnsupportedAlgorithm):
        return []  # a certificate, or something else altogether
