"""Pure decisions about slots and runs: overlap, catch-up, stop, retry, verdict."""
