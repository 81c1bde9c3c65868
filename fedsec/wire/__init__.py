"""What travels between processes and machines: codec, content, local sockets, the gate."""
