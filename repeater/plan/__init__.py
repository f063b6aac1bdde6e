"""The changes between two sets of specs, and the graph that the engine runs. Pure."""
