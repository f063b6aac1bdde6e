"""The event loop of one-off commands, and what both loops wait with."""
