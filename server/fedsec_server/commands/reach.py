"""How a command reaches the coordinator: with which credentials, and what to say if it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import click
import grpc
import grpc.aio
import typer
from click.core import ParameterSource
from google.protobuf.message import Message

from fedsec.errors import ConfigError, FedsecError, IdentityError
from fedsec.wire.answers import error_of
from fedsec.wire.channels import check_presents, open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.services import ADMIN
from fedsec_server.layout import Layout, NotRunningError, find_coordinator, not_running
from fedsec_server.people import Credentials, local_credentials, read_credentials

Reply = TypeVar("Reply", bound=Message)

TIMEOUT_S = 30.0
CONNECT_MS = 5_000
PROBE_S = 3.0

Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        envvar="FEDSEC_SERVER_DIR",
        show_default=False,
        help="The coordinator's directory, on its own machine. Left out: the current directory, "
        "if it is one.",
    ),
]
CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        envvar="FEDSEC_CREDENTIALS",
        show_default=False,
        help="A credentials file of `fedsec person add`, on any machine.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reach:
    """A way to the coordinator.

    Args:
        credentials: Returns them, fresh ones each time on the coordinator's own machine.
        layout: Of the coordinator's directory, if it is on this machine.
    """

    credentials: Callable[[], Credentials]
    layout: Layout | None = None

    def ask(self, method: str, request: Message, kind: type[Reply]) -> Reply:
        """Calls one RPC of the admin service and returns its answer.

        Raises:
            FedsecError: What the coordinator said, or why it cannot be reached.
        """
        return asyncio.run(self._ask(method, request, kind))

    async def _ask(self, method: str, request: Message, kind: type[Reply]) -> Reply:
        async with self._channel() as channel:
            call = channel.unary_unary(
                _path(method), type(request).SerializeToString, kind.FromString
            )
            reply: Reply = await call(request, timeout=TIMEOUT_S)
            return reply

    async def stream(
        self, method: str, request: Message, kind: type[Reply]
    ) -> AsyncIterator[Reply]:
        """Calls an RPC that answers with many messages and gives them as they come.

        Raises:
            FedsecError: What the coordinator said, or why it cannot be reached.
        """
        async with self._channel() as channel:
            call = channel.unary_stream(
                _path(method), type(request).SerializeToString, kind.FromString
            )
            async for reply in call(request):
                yield reply

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        held = self.credentials()
        held.check(now=datetime.now(UTC))
        channel = open_channel(
            held.address,
            node_credentials(held.servers_ca_pem, held.chain_pem, held.key_pem),
            options=[("grpc.min_reconnect_backoff_ms", CONNECT_MS)],  # gRPC's time to connect
        )
        try:
            yield channel
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                cause = await asyncio.to_thread(self._why_unavailable, held)
                raise cause from error
            raise error_of(error) from error
        finally:
            await channel.close()

    def _why_unavailable(self, held: Credentials) -> FedsecError:
        """Finds out what TLS and gRPC do not say."""
        try:
            check_presents(held.address, held.servers_ca_pem, timeout_s=PROBE_S)
        except IdentityError as error:
            if error.code == "nothing-listens" and self.layout is not None:
                return not_running(self.layout)
            if error.code == "pin-mismatch":
                return IdentityError(
                    error.code,
                    f"what answers at {held.address} is not the coordinator that these "
                    "credentials are for: another federation's, or someone in between",
                )
            return NotRunningError(
                f"the coordinator does not run at {held.address}: {error.detail}"
            )
        return NotRunningError(
            f"the coordinator at {held.address} answers but closed the connection: its "
            "certificate does not name this host, it does not take this certificate (its clock?), "
            "or it is shutting down; its log says which"
        )


def reach(directory: Path | None, credentials: Path | None) -> Reach:
    """Returns the way to the coordinator that the options, or the environment, name.

    What stands on the command line counts more than the environment; then a directory more than
    a credentials file; at last the current directory counts.

    Raises:
        ConfigError: No way is named, both are on the command line, or what is named is no such
            directory or file.
    """
    chosen = {"directory": directory is not None, "credentials": credentials is not None}
    written = {name for name in chosen if chosen[name] and on_command_line(name)}
    if len(written) == len(chosen):
        raise ConfigError("give either --dir or --credentials, not both")
    if credentials is not None and (directory is None or "credentials" in written):
        path = credentials
        return Reach(lambda: read_credentials(path))
    layout = find_coordinator(directory) if directory else _current()
    return Reach(lambda: local_credentials(layout, now=datetime.now(UTC)), layout)


def on_command_line(name: str) -> bool:
    """Says whether a parameter of the command was typed; else it is of the environment, or not."""
    context = click.get_current_context(silent=True)
    return context is not None and (
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )


def _current() -> Layout:
    layout = Layout(Path())
    if not layout.settings.is_file():
        raise ConfigError(
            "which coordinator? On its own machine name its directory with --dir (or in "
            "FEDSEC_SERVER_DIR), elsewhere a credentials file with --credentials (or in "
            "FEDSEC_CREDENTIALS)"
        )
    return Layout(Path.cwd())


def _path(method: str) -> str:
    return f"/{ADMIN.full_name}/{method}"
