"""Subscribers of events and output. They have no effect on jobs."""
