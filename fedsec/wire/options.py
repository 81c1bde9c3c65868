"""How gRPC is set up at both ends of every connection between machines.

A peer that froze (SIGSTOP, a pulled cable) is noticed after a keepalive of silence plus
`PING_TIMEOUT_MS`, so within 14 s. A node's ping starts the coordinator's keepalive anew: as the
node's comes first, one ping goes where else there would be two, half of what a quiet node costs the
coordinator. gRPC ignores a keepalive timeout below 60 s unless
`grpc.http2.ping_timeout_ms` says the same; both are set.
"""

MAX_MESSAGE_BYTES = 4 << 20
MAX_METADATA_BYTES = 8 << 10
NODE_KEEPALIVE_MS = 8_000
COORDINATOR_KEEPALIVE_MS = 9_000
PING_TIMEOUT_MS = 5_000
MIN_PING_INTERVAL_MS = 4_000
HANDSHAKE_TIMEOUT_MS = 10_000
MAX_CONCURRENT_STREAMS = 64
MAX_CONNECTION_IDLE_MS = 15_000
MAX_CONNECTION_AGE_MS = 3_600_000
MAX_CONNECTION_GRACE_MS = 300_000

_IDENTITY_ONLY = 1  # bit set of compression algorithms: none; a bomb cannot be inflated

_BOTH_ENDS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # else the third ping of a quiet stream waits
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_BOTH_ENDS,
    ("grpc.keepalive_time_ms", COORDINATOR_KEEPALIVE_MS),
    # Without this one, and the 5 minutes that it stands for else, a quiet session is cut for
    # "too many pings" after half a minute; the name with "recv" in it is not looked at.
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    # Connections are limited in number, so one without a call may not stay. A node has its control
    # stream open on each; people's commands close theirs after the call. Clients reconnect.
    ("grpc.max_connection_idle_ms", MAX_CONNECTION_IDLE_MS),
    # A hard cap: also ends a TLS session that nobody would ever renew. Clients reconnect.
    ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_GRACE_MS),
    ("grpc.so_reuseport", 0),  # a second coordinator on the same port is an error, not a share
)

CLIENT_OPTIONS: tuple[tuple[str, int], ...] = (
    *_BOTH_ENDS,
    ("grpc.keepalive_time_ms", NODE_KEEPALIVE_MS),
    # Channels that share a pool share connections: a new certificate would not be shown.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),
    # Reconnecting is the agent's business, with its own jittered back-off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
