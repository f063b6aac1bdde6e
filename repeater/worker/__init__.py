"""A worker process that handles requests under resource limits and is reused: its client and its server."""
