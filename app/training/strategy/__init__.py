"""Where a training runs: on one device, on all devices of this host, or on several hosts."""

from __future__ import annotations
