"""What every socket of repeater needs: lines of JSON, Unix sockets under long names, the peer's user, accepting."""
