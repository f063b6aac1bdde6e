"""From two sets of specs to what changes between them, and to the graph that the engine runs. Pure."""
