"""The commands, one module each: read the settings, check them, call one function."""
