"""The process: what it computes on, how it is set up, what it says, and how it may end."""
