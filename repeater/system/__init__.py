"""Adapters to the machine: clock, signals, files, network, load, and the daemon of shared limits."""
