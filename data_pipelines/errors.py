"""The base of what the user can mend in the data: a table, a file, a scan."""


class DataError(ValueError):
    """Says what was expected, what was received, where (file, row), and the way out."""
