"""The node's half of secure sums for a plain Flower app: `ClientApp(mods=[secure_mod(plan)])`.

Under plain Flower a node has no key that it enrolled with, and any stage may run in another
process. So its secrets, a signing key made for the round among them, lie in ``context.state`` for
the length of a round, and only semi-honest mode is possible. fedsec's own nodes need no mod: theirs
stands around every app, and keeps its secrets in memory.
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsec.errors import ConfigError
from fedsec.flower.arrays import pack, unpack
from fedsec.flower.messages import Heading
from fedsec.flower.secure_messages import Stage, read_stage
from fedsec.flower.secure_node import Identity, SecureNode, Turn, coding
from fedsec.plan import FederationPlan
from fedsec.secagg.keeping import read_state, write_state
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Mode
from fedsec.secagg.session import Session

TURN, WORDS, SIGNER = "fedsec.secagg.turn", "fedsec.secagg.words", "fedsec.secagg.signer"
_KEY, _VECTOR, _KEPT = "key", "vector", "state."
_ROUND, _ATTEMPT, _LENGTH, _BITS, _QUORUM, _MOST = (
    "round",
    "attempt",
    "words",
    "word-bits",
    "quorum",
    "most",
)


def secure_mod(plan: FederationPlan) -> Mod:
    """Returns the mod; an update of the app it stands around leaves masked or not at all.

    Args:
        plan: For a Flower app, with secure aggregation in semi-honest mode.

    Raises:
        ConfigError: The plan is another one.
    """
    check_plain(plan)
    turns, code = ContextTurns(plan), coding(plan)

    def mod(message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the node's answer; raises as `SecureNode` does."""
        if read_stage(message.content) is Stage.OFFER:
            context.state[SIGNER] = ConfigRecord(
                {_KEY: Ed25519PrivateKey.generate().private_bytes_raw()}
            )
        node = SecureNode(plan, Identity(_signer(context)), code, turns)
        return node(message, context, app)

    return mod


def check_plain(plan: FederationPlan) -> None:
    """Returns when plain Flower can carry out the plan's secure aggregation.

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
    if Mode(section.mode) is Mode.MALICIOUS:
        raise ConfigError(
            'secure_aggregation.mode = "malicious" needs nodes with enrolled keys and a roster '
            'signed by the root: run the app over fedsec\'s own nodes, or choose "semi-honest"'
        )


class ContextTurns:
    """Keeps a node's turn in ``context.state``.

    Args:
        plan: With secure aggregation.
    """

    def __init__(self, plan: FederationPlan) -> None:
        self._plan = plan

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
        for name in (TURN, WORDS):
            if name in context.state:
                del context.state[name]
        if turn is None:
            return
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
        context.state[TURN] = ConfigRecord({**numbers, **fields})
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
        )
        assumptions = section.assumptions(self._plan.round.attempts)
        return Setting(session, assumptions, _int(kept, _QUORUM), _int(kept, _MOST))


def _signer(context: Context) -> Ed25519PrivateKey:
    key = context.state.config_records.get(SIGNER, ConfigRecord()).get(_KEY)
    if not isinstance(key, bytes):
        return Ed25519PrivateKey.generate()  # no turn is under way; the stage is refused
    return Ed25519PrivateKey.from_private_bytes(key)


def _int(record: ConfigRecord, name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int):
        raise ConfigError(f"context.state[{TURN!r}] has no number {name!r}")
    return value
