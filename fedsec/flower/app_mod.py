"""The node's half of secure sums for a plain Flower app: `ClientApp(mods=[secure_mod(plan)])`.

Under plain Flower a node has no key that it enrolled with, and any stage may run in another
process. So its secrets, in semi-honest mode a signing key made for the round among them, lie in
``context.state``, each until nothing is left to do with it. Malicious mode needs a policy directory
at the node, see `fedsec.flower.policy_directory`; without one the node refuses. fedsec's own nodes
need no mod: theirs stands around every app, and keeps its secrets in memory.
"""

import logging
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsec.errors import ConfigError, FedsecError, PolicyRefusal
from fedsec.flower import policy_directory
from fedsec.flower.arrays import pack, unpack
from fedsec.flower.local import APP_RAISED
from fedsec.flower.messages import Heading
from fedsec.flower.secure_messages import RUN_CONFIG, Stage, read_stage
from fedsec.flower.secure_node import FAILED, Identity, SecureNode, Turn, coding
from fedsec.plan import FederationPlan
from fedsec.plan.visibility import assumptions
from fedsec.secagg.keeping import read_state, write_state
from fedsec.secagg.membership import Setting
from fedsec.secagg.node import Offered
from fedsec.secagg.parameters import Mode
from fedsec.secagg.session import Session

_LOG = logging.getLogger(__name__)

TURN, WORDS, SIGNER = "fedsec.secagg.turn", "fedsec.secagg.words", "fedsec.secagg.signer"
_KEY, _VECTOR, _KEPT = "key", "vector", "state."
_ROUND, _ATTEMPT, _LENGTH, _BITS, _QUORUM, _MOST, _ASKED = (
    "round",
    "attempt",
    "words",
    "word-bits",
    "quorum",
    "most",
    "asked",
)


def secure_mod(plan: FederationPlan) -> Mod:
    """Returns the mod; an update of the app it stands around leaves masked or not at all.

    Args:
        plan: For a Flower app, with secure aggregation.

    Raises:
        ConfigError: The plan is another one.
    """
    malicious = check_plain(plan) is Mode.MALICIOUS
    identify = _long_term if malicious else _for_a_round
    code = coding(plan)

    def mod(message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the node's answer; raises as `SecureNode` does."""
        _check_run_config(message, context)
        identity = identify(message, context)
        turns = ContextTurns(plan, None if malicious else identity.signer)
        node = SecureNode(plan, identity, code, turns)
        try:
            return node(message, context, partial(_quietly, app))
        except FedsecError:  # in words of ours
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it stays here
            return _withheld(message)

    return mod


def _quietly(app: ClientAppCallable, message: Message, context: Context) -> Message:
    """Has an app answer; of an exception it tells no more than that there was one.

    Flower would send the text on, which may show records.
    """
    try:
        return app(message, context)
    except (Exception, SystemExit):  # noqa: BLE001 - an app may raise anything
        return _withheld(message)


def _withheld(message: Message) -> Message:
    """Returns the answer in the place of the exception that is being handled; logs that here."""
    _LOG.exception("a protected app failed; the coordinator is told no more than that it did")
    return Message(Error(APP_RAISED, FAILED), reply_to=message)


def _check_run_config(message: Message, context: Context) -> None:
    """Returns when the runtime configured this node as the strategy said that all are.

    What the strategy said is under the digest that nodes sign; what the runtime says is not.
    """
    if read_stage(message.content) is not Stage.OFFER:
        return
    told = dict(message.content.config_records.get(RUN_CONFIG, {}))
    own = dict(context.run_config)
    names = sorted(told.keys() | own.keys())
    differing = [name for name in names if repr(told.get(name)) != repr(own.get(name))]  # 1 or True
    if differing:
        raise PolicyRefusal(
            f"this node's run_config differs from the strategy's in {', '.join(differing[:5])}: "
            "nodes that are configured differently are in no sum together; write "
            "SecureStrategy(..., run_config=context.run_config)"
        )


def check_plain(plan: FederationPlan) -> Mode:
    """Returns the mode of the plan's secure aggregation, if plain Flower can carry it out.

    Raises:
        ConfigError: It cannot; says why.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    if plan.built_in:
        raise ConfigError(
            'the plan is for the built-in app; a Flower app needs a plan with app.name other than "'
            f'{plan.app.name}"'
        )
    return Mode(section.mode)


class ContextTurns:
    """Keeps a node's turn in ``context.state``.

    Args:
        plan: With secure aggregation.
        signer: A key made for the round, kept until it has signed the node's shares, its last use.
    """

    def __init__(self, plan: FederationPlan, signer: Ed25519PrivateKey | None) -> None:
        self._plan = plan
        self._signer = signer

    def get(self, context: Context) -> Turn | None:
        """See `fedsec.flower.secure_node.Turns`."""
        kept = context.state.config_records.get(TURN)
        if kept is None:
            return None
        fields = {
            name.removeprefix(_KEPT): value
            for name, value in kept.items()
            if name.startswith(_KEPT) and isinstance(value, bytes)
        }
        heading = Heading(_int(kept, _ROUND), _int(kept, _ATTEMPT), self._plan.digest)
        setting = self._setting(context, kept, heading)
        arrays = context.state.array_records.get(WORDS)
        words = unpack(arrays[_VECTOR]).copy() if arrays else None
        return Turn(heading, setting, read_state(setting, fields), words)

    def put(self, context: Context, turn: Turn | None) -> None:
        """See `fedsec.flower.secure_node.Turns`."""
        for name in (TURN, WORDS, SIGNER):
            if name in context.state:
                del context.state[name]
        if turn is None:
            return
        if self._signer is not None and isinstance(turn.state, Offered):
            context.state[SIGNER] = ConfigRecord({_KEY: self._signer.private_bytes_raw()})
        session = turn.setting.session
        numbers = {
            _ROUND: session.round,
            _ATTEMPT: session.attempt,
            _LENGTH: session.words,
            _BITS: session.word_bits,
            _QUORUM: turn.setting.quorum,
            _MOST: turn.setting.most,
        }
        fields = {_KEPT + name: value for name, value in write_state(turn.state).items()}
        context.state[TURN] = ConfigRecord({**numbers, _ASKED: session.asked, **fields})
        if turn.words is not None:
            context.state[WORDS] = ArrayRecord({_VECTOR: pack(turn.words)})

    def _setting(self, context: Context, kept: ConfigRecord, heading: Heading) -> Setting:
        section = self._plan.secure_aggregation
        if section is None:
            raise ConfigError("the plan has no [secure_aggregation]")
        session = Session(
            plan=bytes.fromhex(self._plan.digest),
            run=context.run_id % 2**64,
            round=heading.round,
            attempt=heading.attempt,
            words=_int(kept, _LENGTH),
            word_bits=_int(kept, _BITS),
            malicious=Mode(section.mode) is Mode.MALICIOUS,
            asked=_bytes(kept, _ASKED),
        )
        return Setting(session, assumptions(self._plan), _int(kept, _QUORUM), _int(kept, _MOST))


def _for_a_round(message: Message, context: Context) -> Identity:
    """Returns an identity with a key of this round's, which the coordinator vouches for."""
    key = context.state.config_records.get(SIGNER, ConfigRecord()).get(_KEY)
    if read_stage(message.content) is Stage.OFFER or not isinstance(key, bytes):
        return Identity(Ed25519PrivateKey.generate())  # or nothing is left to sign
    return Identity(Ed25519PrivateKey.from_private_bytes(key))


def _long_term(_message: Message, context: Context) -> Identity:
    """Returns the identity that the root vouches for, from the site's policy directory."""
    named = context.node_config.get(policy_directory.POLICY)
    if not isinstance(named, str) or not named:
        raise PolicyRefusal(
            'secure_aggregation.mode = "malicious" needs a signing key and a roster signed by the '
            f"root: this node's node_config names no directory with them ({policy_directory.POLICY}"
            '="/path"); make one with `fedsec roster entry`, or choose "semi-honest"'
        )
    held = policy_directory.read(Path(named), context.node_id, now=datetime.now(UTC))
    return Identity(*held)


def _int(record: ConfigRecord, name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int):
        raise ConfigError(f"context.state[{TURN!r}] has no number {name!r}")
    return value


def _bytes(record: ConfigRecord, name: str) -> bytes:
    value = record.get(name)
    if not isinstance(value, bytes):
        raise ConfigError(f"context.state[{TURN!r}] has no bytes {name!r}")
    return value
