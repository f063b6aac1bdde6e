"""Talking to a running supervisor over its own Unix socket: the messages, both ends, and what each verb does."""
