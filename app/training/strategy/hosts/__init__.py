"""Several hosts: one process on each, which share every batch and step as one.

On each host a supervising process (`supervise`) starts the training process (`worker`) and says how it ended:
the engine aborts a process whose coordinator is gone, and then nothing in it can say anything any more.
"""

from __future__ import annotations
