"""Where a training runs: on one device, or on all devices of this host."""

from __future__ import annotations
