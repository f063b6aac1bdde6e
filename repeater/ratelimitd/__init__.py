"""The daemon that shares rate limits between processes: admission, protocol, server and clients."""
