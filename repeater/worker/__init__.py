"""A process of our own that answers requests under limits and stays ready between them: its client and its server."""
