"""What things are: frozen values, standard library only. Nothing here decides or does anything."""
