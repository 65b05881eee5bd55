"""The process: devices, precision, threads, memory, seeds, logs, and how it ends."""
