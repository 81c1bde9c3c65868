"""Who is who: authorities, certificates, invites, signing keys. Bytes in, bytes out; no I/O.

names          SPIFFE ids, kinds, roles; `Principal`
certificates   reading certificates, who signed them, when they hold
authorities    the root and the three issuing authorities
leaves         keys, signing requests, issuing
principals     from a peer's certificate to a `Principal`, or to the reason why not
bundles        what a node checks of what it receives at enrolment and renewal
invites        the one line that a node's operator is given
roster         which nodes there are, signed by the root
signing        a node's long-term Ed25519 key and its proof of possession
pkcs8          keys encrypted by a passphrase
times          aware UTC, whole seconds

Specs: docs/spec/enrolment.md and roster.md. Every refusal is an `IdentityError` with a stable code.
"""
