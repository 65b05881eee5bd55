"""Tables of subjects and labels: read, checked, split by subject, searched for leaks."""
