"""Where a network looks: maps of one volume, on its own grid and in a picture."""
