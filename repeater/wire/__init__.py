"""Shared code of all sockets: JSON lines, Unix sockets, listeners, the user of the peer, accepting connections."""
