"""Several hosts: one process on each, which share every batch and step as one; on JAX's public interface."""
