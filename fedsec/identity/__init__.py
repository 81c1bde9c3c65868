"""Who is who: authorities, certificates, invites, signing keys. Bytes in, bytes out; no I/O."""
