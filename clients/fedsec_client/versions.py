"""Which protocol this node speaks."""

import fedsec
from fedsec.wire.generated.fleet_pb2 import Version

PROTOCOL = (1, 0)
SOFTWARE = f"fedsec {fedsec.__version__}"


def protocol_version() -> Version:
    """Returns the version for a hello. Another minor version is spoken to, another major is not."""
    major, minor = PROTOCOL
    return Version(major=major, minor=minor)
