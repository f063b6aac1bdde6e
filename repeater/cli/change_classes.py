"""How `rpr plan`, `rpr apply` and `rpr reload` print each class of change: a sign and a phrase."""

SIGNS = {"add": "+", "remove": "-", "restart": "!", "retime": "~", "next_run": "~", "in_place": "~", "move": ">"}
WORDS = {
    "add": "is new",
    "remove": "is removed",
    "restart": "restarts",
    "retime": "reschedules",
    "next_run": "takes effect at next run",
    "in_place": "takes effect now",
    "move": "is renamed",
    "keep": "unchanged",
}
