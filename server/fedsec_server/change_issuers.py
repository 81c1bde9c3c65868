"""Making new issuing authorities for a coordinator, from the root, while it may be running.

Written so that a crash at any moment leaves the former authority or the new one, never half of
each: what the former one needs, then the new key, then the new certificate, all under other names;
with that last file the change counts, and whoever loads the authorities next finishes the renaming.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from fedsec.errors import ConfigError, IdentityError, StateError
from fedsec.files import read_private, read_public, write_private, write_public
from fedsec.identity.authorities import Authority, fingerprint, make_issuer, show_fingerprint
from fedsec.identity.leaves import Lifetimes
from fedsec.identity.names import Kind
from fedsec.identity.times import show_time
from fedsec_server.generations import finish_change, forget_former, load_generations
from fedsec_server.init import check_apart, load_root
from fedsec_server.layout import PLURALS, Layout


def change_issuers(
    layout: Layout,
    root_directory: Path,
    passphrase: bytes,
    *,
    kinds: Collection[Kind],
    lifetimes: Lifetimes,
    now: datetime,
    at_once: bool = False,
) -> None:
    """Makes new issuing authorities; a coordinator that runs has to be told afterwards.

    Args:
        layout: Of the coordinator's directory.
        root_directory: Where the federation's root is.
        passphrase: Of the root's key.
        kinds: Whose authorities.
        lifetimes: From the settings; they say for how long two authorities are trusted.
        now: Aware time.
        at_once: Trust the former ones no longer, as when a key was stolen: whom they certified has
            to join anew.

    Raises:
        ConfigError: The directories are not fit, or a file cannot be written.
        IdentityError: The root is another federation's, or cannot be used.
        StateError: An authority is being replaced already, or somebody else is at it.
    """
    check_apart(layout.directory, root_directory)
    root = _load_our_root(layout, root_directory, passphrase)
    with _alone(layout):
        if not at_once:
            _refuse_second(layout, kinds, lifetimes, now)
        for kind in kinds:
            _change(layout, kind, make_issuer(root, kind, now=now), keep=not at_once)


def _load_our_root(layout: Layout, root_directory: Path, passphrase: bytes) -> Authority:
    """Returns the root, if it is the one that the coordinator stands under."""
    root = load_root(root_directory, passphrase)
    ours = fingerprint(read_public(layout.root_certificate))
    if root.fingerprint != ours:
        raise IdentityError(
            "wrong-fingerprint",
            f"the root in {root_directory} is {show_fingerprint(root.fingerprint)}; the "
            f"coordinator of {layout.directory} stands under {show_fingerprint(ours)}",
        )
    return root


def _refuse_second(
    layout: Layout, kinds: Collection[Kind], lifetimes: Lifetimes, now: datetime
) -> None:
    """Raises StateError if the former authority of a kind is still needed."""
    try:
        present = load_generations(layout, now=now)
    except IdentityError as error:
        if error.code == "expired":  # which is what the change is to mend
            return
        raise
    for kind in kinds:
        end = present.of[kind].ends(kind, lifetimes)
        if end is not None and now < end:
            raise StateError(
                f"the CA for {PLURALS[kind]} is being replaced already, until {show_time(end)}; "
                "wait for that, or use --at-once if a key was stolen"
            )


def _change(layout: Layout, kind: Kind, new: Authority, *, keep: bool) -> None:
    finish_change(layout, kind)
    forget_former(layout, kind)
    if keep:
        if kind is Kind.SERVER:  # which goes on issuing for a while
            key = read_private(layout.issuer_key(kind))
            write_private(layout.issuer_key(kind, ".former"), key)
        certificate = read_public(layout.issuer_certificate(kind))
        write_public(layout.issuer_certificate(kind, ".former"), certificate)
    write_private(layout.issuer_key(kind, ".next"), new.key_pem(None))
    write_public(layout.issuer_certificate(kind, ".next"), new.certificate_pem)
    finish_change(layout, kind)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    descriptor = os.open(layout.authorities, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StateError(
            f"another command is changing the authorities of {layout.directory}"
        ) from None
    finally:
        os.close(descriptor)


def check_kinds(names: Collection[str]) -> list[Kind]:
    """Returns the kinds of names as people write them; all of them where there is no name.

    Raises:
        ConfigError: A name is none of ``servers``, ``nodes``, ``people``.
    """
    known = {name: kind for kind, name in PLURALS.items()}
    for name in names:
        if name not in known:
            raise ConfigError(f"CA {name[:40]!r} must be one of {', '.join(known)}")
    return [kind for name, kind in known.items() if not names or name in names]
