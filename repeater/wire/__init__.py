"""What every socket of repeater needs: lines of JSON, Unix sockets under long names, who is at the other end."""
