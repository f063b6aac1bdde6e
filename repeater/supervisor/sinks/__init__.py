"""Sinks through which the output of a run goes before it reaches `output`."""
