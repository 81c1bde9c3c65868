"""Which versions of the protocol speak with each other.

Coordinators are upgraded first: a coordinator speaks its own minor version and the one before.
Another major version, or a newer minor one, is refused with a sentence that says what to upgrade.
"""

from fedsec import __version__
from fedsec.wire.generated.fleet_pb2 import Version

PROTOCOL = (1, 0)
SOFTWARE = f"fedsec {__version__}"


def speaks(theirs: Version, ours: tuple[int, int] | None = None) -> str:
    """Returns "" when this coordinator can speak with a node, else one sentence for its operator.

    >>> speaks(Version(major=1, minor=3), ours=(1, 4))
    ''
    >>> speaks(Version(major=1, minor=5), ours=(1, 4))
    'the coordinator speaks protocol 1.4, the node 1.5: upgrade the coordinator'
    """
    ours = ours or PROTOCOL
    major, minor = ours
    if theirs.major == major and 0 <= minor - theirs.minor <= 1:
        return ""
    older = "the node" if (theirs.major, theirs.minor) < ours else "the coordinator"
    return (
        f"the coordinator speaks protocol {major}.{minor}, the node {theirs.major}.{theirs.minor}: "
        f"upgrade {older}"
    )


def protocol() -> Version:
    """Returns the version that this coordinator speaks, in wire form."""
    major, minor = PROTOCOL
    return Version(major=major, minor=minor)
