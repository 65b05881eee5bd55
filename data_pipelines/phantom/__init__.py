"""Synthetic volumes whose class, number, findings or grades only the volume shows."""
