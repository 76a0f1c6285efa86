"""Code without a subject of its own: errors, atomic files, intervals, random draws, devices, stopping."""
