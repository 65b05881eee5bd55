"""How many subjects a comparison needs."""
