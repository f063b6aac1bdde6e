"""Subscribers: they read events and output, and never steer."""
