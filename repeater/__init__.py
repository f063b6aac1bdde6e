"""repeater: a declarative runner of repeat jobs. Kept empty, so that importing a part costs only that part."""

__version__ = "0.1.0"
