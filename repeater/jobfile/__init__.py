"""Converts the text of job files to specs. Pure: files are read only through the `Files` argument."""
