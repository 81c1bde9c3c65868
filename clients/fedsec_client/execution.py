"""Inside a worker: the app is loaded, and each message becomes a reply.

    message --decode--> guard --> app --> reply --encode--> header and content
                 |        |        |                 |
                 +--------+--------+-----------------+--> error reply, one sentence

The guard (fedsec.flower.mod) stands around the app, from outside: an unmodified app cannot leave
it out. The type, text and place of an exception over a message go to the coordinator (its type
alone while the app and its data are prepared); the traceback, which may show data, stays in the
worker's log.
"""

import importlib
import logging
import os
import socket
import sys
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedsec import flwr_apps, flwr_compat
from fedsec.console import safe
from fedsec.errors import DataError, FedsecError, PolicyRefusal, ProtocolError
from fedsec.flower.mod import guard
from fedsec.flower.secure_node import Identity
from fedsec.plan import FederationPlan
from fedsec.wire import codec
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.local_pb2 import Ready, Refusal, WorkerCommand, WorkerFrame, WorkerStart
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, new_message_id, reply_failure
from fedsec.wire.local import LocalSocket
from fedsec.wire.records import Limits
from fedsec_client.privacy import open_privacy
from fedsec_client.site import PLAN_KEY, Site
from fedsec_client.statefile import StateFile

_TEXT = 500  # characters of an exception's text that leave the node
_TASK_ID = 1
_LOG = logging.getLogger(__name__)  # into worker.log, for the node's own operator


class _RejectedError(Exception):
    """The message gets an error reply with this code and sentence."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def serve(link: socket.socket) -> None:
    """Serves the agent at the other end of `link` until it hangs up or says stop."""
    agent = LocalSocket(link)
    execution: Execution | None = None
    while (received := agent.receive()) is not None:
        data, descriptors = received
        command = WorkerCommand.FromString(data)
        match command.WhichOneof("kind"):
            case "start":
                execution = _start(agent, command.start)
            case "task" if execution is not None:
                execution.serve_one(agent, command.task, descriptors)
            case _:
                return


def _start(agent: LocalSocket, start: WorkerStart) -> "Execution | None":
    try:
        execution = Execution.load(start)
    except DataError as error:  # what is wrong with the records is no business of others
        print(error, file=sys.stderr)  # noqa: T201 - the worker's log
        agent.send(WorkerFrame(refusal=Refusal(reason=error.outward)).SerializeToString())
        return None
    except Exception as error:  # noqa: BLE001 - importing somebody's app may raise anything
        traceback.print_exc()
        kind = type(error).__name__  # the text may hold a piece of the records
        why = f"the app cannot be prepared ({kind}); why is in worker.log"
        reason = str(error) if isinstance(error, FedsecError) else why
        agent.send(WorkerFrame(refusal=Refusal(reason=reason)).SerializeToString())
        return None
    agent.send(WorkerFrame(ready=Ready()).SerializeToString())
    return execution


class Execution:
    """One run in this process.

    Args:
        app: Answers messages.
        mod: Stands around the app.
        context: The app's; its state is kept in `state_file`.
        state_file: Saved after each message that was answered, and when a turn of a secure sum is
            taken.
        site: What the agent says.
        withheld: Whether an exception's text, which may show data, stays in the worker's log.
    """

    def __init__(
        self,
        app: ClientApp,
        mod: Mod,
        context: Context,
        state_file: StateFile,
        site: Site,
        *,
        withheld: bool = False,
    ) -> None:
        self._app = app
        self._mod = mod
        self._context = context
        self._state_file = state_file
        self._site = site
        self._withheld = withheld
        self._limits = Limits(max_content=site.max_content_bytes)

    @classmethod
    def load(cls, start: WorkerStart) -> "Execution":
        """Loads the app of a run.

        Raises:
            FedsecError: The app, its configuration or its saved state cannot be used.
        """
        plan = FederationPlan.parse(start.plan)
        site = Site.model_validate_json(start.settings_json)
        flwr_compat.check_version()
        flwr_compat.become(start.run_id, start.node_id, _TASK_ID)
        app, run_config = _load_app(plan, start.plan, site)
        state_file = StateFile(Path(start.state_directory))
        context = Context(
            run_id=start.run_id,
            node_id=start.node_id,
            node_config=dict(site.node_config),
            state=state_file.load(),
            run_config=run_config,
        )
        if plan.built_in:
            _prepare(context, site)
        identity = _identity(start, site)
        private = open_privacy(plan, site, context, Path(start.state_directory))
        mod = guard(plan, _agreed, identity, private, keep=partial(_keep, state_file))
        withheld = plan.privacy is not None or plan.secure_aggregation is not None
        return cls(app, mod, context, state_file, site, withheld=withheld)

    def serve_one(self, agent: LocalSocket, instruction: Header, descriptors: list[int]) -> None:
        """Answers one message; the content's descriptor is closed."""
        header, content = self.answer(instruction, descriptors)
        frame = WorkerFrame(reply=header).SerializeToString()
        if content is None:
            agent.send(frame)
            return
        with content:
            agent.send(frame, (content.fd,))

    def answer(self, instruction: Header, descriptors: list[int]) -> codec.Encoded:
        """Returns the reply to one message, whatever happens."""
        try:
            return self._answer(instruction, descriptors)
        except _RejectedError as error:
            return reply_failure(instruction, error.code, error.reason), None

    def _answer(self, instruction: Header, descriptors: list[int]) -> codec.Encoded:
        reply = self._run(self._decode(instruction, descriptors))
        _check_reply(reply, instruction)
        _keep(self._state_file, self._context)
        flwr_compat.set_message_id(reply, new_message_id())
        try:
            return codec.Encoder(self._limits).encode_many((reply,))[0]
        except ProtocolError as error:
            hint = "; see limits.max_content_mb in node.toml" if error.code == "too-large" else ""
            raise _app_failed(f"its reply cannot be sent: {error.detail}{hint}") from error

    def _decode(self, instruction: Header, descriptors: list[int]) -> Message:
        try:
            if not descriptors:
                return codec.decode(instruction, None, limits=self._limits)
            with Blob.adopt(descriptors[0], instruction.bulk.length) as content:
                return codec.decode(instruction, content, limits=self._limits)
        except ProtocolError as error:
            raise _RejectedError(
                ErrorCode.MESSAGE_UNAVAILABLE, f"the node could not read the message: {error}"
            ) from error
        except MemoryError as error:
            raise self._out_of_memory(error) from error

    def _run(self, message: Message) -> Message:
        try:
            return self._mod(message, self._context, self._app)
        except _RejectedError:
            raise
        except PolicyRefusal as error:
            _LOG.warning("a message is refused: %s", safe(error))
            raise _RejectedError(ErrorCode.MOD_FAILED_PRECONDITION, f"refused: {error}") from error
        except ProtocolError as error:
            _LOG.warning("a message cannot be used: %s", safe(error))
            why = f"the node could not use the message: {error}"
            raise _RejectedError(ErrorCode.MOD_FAILED_PRECONDITION, why) from error
        except DataError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the worker's log
            raise _RejectedError(ErrorCode.MOD_FAILED_PRECONDITION, error.outward) from error
        except MemoryError as error:
            raise self._out_of_memory(error) from error
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            if _is_about_memory(error):
                raise self._out_of_memory(error) from error
            if self._withheld and not isinstance(error, FedsecError):
                kept = "with [privacy] or [secure_aggregation] it stays there"
                raise _app_failed(f"why is in worker.log; {kept}") from error
            raise _app_failed(describe(error, 1)) from error

    def _out_of_memory(self, error: BaseException) -> _RejectedError:
        limit = f"limits.memory_mb = {self._site.memory_mb}" if self._site.memory_mb else "it has"
        text = "" if self._withheld else f": {safe(error, _TEXT)}"  # which counts records
        return _app_failed(f"it needs more memory than {limit}{text}")


def describe(error: BaseException, depth: int) -> str:
    """Returns an exception's type, text (cut) and place, on one line.

    Args:
        error: As caught.
        depth: How many of the outermost frames are ours and not worth naming.
    """
    frames = traceback.extract_tb(error.__traceback__)[depth:]
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119 - text, no file
    text = safe(error, _TEXT)
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _load_app(
    plan: FederationPlan, plan_text: str, site: Site
) -> tuple[ClientApp, dict[str, bool | int | float | str]]:
    if plan.built_in:
        return flwr_apps.load_client_app(site.client), {PLAN_KEY: plan_text}
    if not site.directory:
        config = flwr_apps.flatten_config(plan.app.config)
        return flwr_apps.load_client_app(site.client), config
    directory = Path(site.directory)
    settings = flwr_apps.app_settings(directory)
    config = flwr_apps.merge_config(settings.config, plan.app.config)
    return flwr_apps.load_client_app(settings.client_ref, directory), config


def _prepare(context: Context, site: Site) -> None:
    """Has the built-in app read the site's data: what is wrong with it is said before round 1.

    Raises:
        ConfigError: The data cannot be used.
    """
    importlib.import_module(site.client.partition(":")[0]).prepare(context)


def _identity(start: WorkerStart, site: Site) -> Identity | None:
    """Returns who this node is in secure sums; None where the plan has none."""
    if not start.signing_key:
        return None
    signer = Ed25519PrivateKey.from_private_bytes(start.signing_key)
    trusted = {each.node_id: each.signing_key for each in start.member}
    until = datetime.fromtimestamp(start.roster_until, UTC) if start.roster_until else None
    return Identity(signer, trusted or None, site.minima, until)


def _agreed(plan: FederationPlan) -> None:
    """The agent asked the site's policy before it started this worker for the plan."""


def _keep(state_file: StateFile, context: Context) -> None:
    """Saves the app's state.

    Raises:
        _RejectedError: It cannot be kept.
    """
    try:
        state_file.save(context.state)
    except FedsecError as error:
        raise _app_failed(f"its context.state cannot be kept: {error}") from error


def _check_reply(reply: object, instruction: Header) -> None:
    if not isinstance(reply, Message):
        raise _app_failed(f"it returned {type(reply).__name__} where a Message is due")
    of = flwr_compat.envelope(reply)
    want = (instruction.message_id, instruction.dst_node_id, instruction.src_node_id)
    if (of.reply_to, of.src_node_id, of.dst_node_id) != want:
        raise _app_failed(
            "its Message does not answer the one it was given; make it with reply_to=message"
        )


def _app_failed(reason: str) -> _RejectedError:
    return _RejectedError(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"the app failed: {reason}")


def _is_about_memory(error: BaseException) -> bool:
    """Whether torch says in its own way that it got no memory."""
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
