"""The control protocol over HTTP."""
