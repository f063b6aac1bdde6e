"""How `rpr plan`, `rpr apply` and `rpr reload` print each class of change: a sign and a phrase."""

SIGNS = {"add": "+", "remove": "-", "restart": "!", "retime": "~", "next_run": "~", "in_place": "~", "move": ">"}
WORDS = {
    "add": "is new",
    "remove": "is removed",
    "restart": "restarts",
    "retime": "gets a new next start",
    "next_run": "changes with its next run",
    "in_place": "changes at once",
    "move": "is renamed",
    "keep": "stays as it is",
}
