"""Every error that fedsec raises on purpose.

FedsecError
  ConfigError      a value that an operator wrote is wrong: file, key, value, what is allowed
    DataError      a site's records are not what its settings say; stays at the site
  IdentityError    a certificate, key, invite or signature is not what it must be; carries a code
  ProtocolError    a peer sent what the protocol forbids; carries who and why
  PolicyRefusal    this site does not allow what was asked; the reason goes back to who asked
  StateError       what was asked does not fit the present state, e.g. a run that does not exist
  TooManyFaults    more rows are unusable than the rule withstands (fedsec.robust)
  BudgetExhausted  a release would cost more privacy than the ledger has left
"""


class FedsecError(Exception):
    """Root of the tree: `except FedsecError` catches what this package raises."""


class ConfigError(FedsecError, ValueError):
    """A parameter is out of range. The message names it, its value and the range."""


class DataError(ConfigError):
    """A site's records are not what its settings say.

    The detail names files, rows and columns, never values. It is for the people of the site: what
    leaves the site is `outward`.

    Args:
        detail: What is wrong, in one sentence or a list of them.
        dataset: Name of the data set, where known.
    """

    def __init__(self, detail: str, dataset: str = "") -> None:
        super().__init__(f"[data.{dataset}] {detail}" if dataset else detail)
        self.detail = detail
        self.dataset = dataset

    @property
    def outward(self) -> str:
        """What others may learn: that it cannot be used, and where its people look."""
        return (
            f'its data set "{self.dataset}" cannot be used; `fedsec node data check '
            f"{self.dataset}` on the node says why"
        )


class IdentityError(FedsecError):
    """A certificate, key, invite or signature was refused.

    Args:
        code: One stable word for logs and the wire, e.g. ``"expired"``.
        detail: One sentence for a human. Never holds secret material.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ProtocolError(FedsecError):
    """A peer broke the protocol. The round goes on without that peer.

    Args:
        peer: Identity from the peer's certificate, never from the message body; ``""`` where a
            parser does not know whose bytes it reads.
        code: One stable word for logs, metrics and the wire, e.g. ``"bad-hash"``.
        detail: One sentence for a human. Never holds secret material.
    """

    def __init__(self, peer: str, code: str, detail: str) -> None:
        super().__init__(f"{peer}: {code}: {detail}" if peer else f"{code}: {detail}")
        self.peer = peer
        self.code = code
        self.detail = detail


class PolicyRefusal(FedsecError):
    """A site refuses a plan. The message is the reason, in one sentence."""


class StateError(FedsecError):
    """What was asked for does not exist or cannot be done now. The message says what to do."""


class BudgetExhausted(FedsecError):
    """The privacy ledger refuses the release; nothing was published."""
