"""The run folder: its layout, what is written into it, and how it is found and read again."""
