"""The composition roots: the supervisor, the rate-limit daemon, the one-off commands, and what serves the CLI.

Only this package imports the adapters (`processes`, `store`, `system`, `output`, `worker`). Import its modules
directly. This file imports nothing, so a one-off command loads no module of the supervisor.
"""
