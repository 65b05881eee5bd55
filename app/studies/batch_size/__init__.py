"""Study the batch size: speed, memory, score and stability."""
