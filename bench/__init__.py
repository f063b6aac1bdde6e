"""Figures, measured beside peers in one run. Start with `make bench`; nothing here is part of the product."""
