"""What owns child processes; standard library only, so that it starts in milliseconds."""
