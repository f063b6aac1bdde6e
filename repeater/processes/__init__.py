"""Adapters that run commands: in the shim, or as children of this process."""
