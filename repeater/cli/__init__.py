"""The command line: one module for each command, named as the command. Only `cli.main` prints errors."""
