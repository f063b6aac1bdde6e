"""From the text of job files to specs. Pure: the disk is reached only through the `Files` that is passed in."""
