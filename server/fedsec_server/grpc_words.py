"""How much gRPC says on stderr: GRPC_VERBOSITY, which it reads when it is imported.

So this module, which decides on it, imports nothing.
"""

import os
from collections.abc import Mapping

_VERBOSITY = "GRPC_VERBOSITY"
_SPOKEN = "INFO"


def asked_for(environment: Mapping[str, str]) -> bool:
    """Says whether the operator wants to see what gRPC says: INFO or DEBUG, as gRPC in any case.

    ERROR and NONE are no such wish; nor can they be told from what `fedsec` sets for its commands
    and flwr at its import, for themselves and for the processes that they start.
    """
    return environment.get(_VERBOSITY, "").upper() in {"INFO", "DEBUG"}


ASKED = asked_for(os.environ)  # before `let_speak` sets it


def let_speak() -> None:
    """Lets gRPC say whom TLS refuses, for `handshakes` to read; an operator's wish stays."""
    if not ASKED:
        os.environ[_VERBOSITY] = _SPOKEN
