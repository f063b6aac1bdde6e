"""The sign and the phrase for each class of change in `rpr plan`, `rpr apply` and `rpr reload`."""

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
