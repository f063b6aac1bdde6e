"""The only loops: facts in, actions out."""
