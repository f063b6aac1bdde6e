"""The outside, one port per file. Only `app` imports these; they do not know each other."""
