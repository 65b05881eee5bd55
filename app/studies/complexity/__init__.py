"""Study what models cost as the volume grows."""
