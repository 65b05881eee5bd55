"""What a package that is not there is told with: the extra of ours that brings it."""

from __future__ import annotations


def install_extra(extra: str) -> str:
    """How an extra comes into the environment that Voxlift runs in, from a checkout or from a wheel.

    pip finds the installed package itself, and fetches only what the extra adds.

    >>> install_extra("search")
    "Install it into this environment with: pip install 'voxlift[search]'."
    """
    return f"Install it into this environment with: pip install 'voxlift[{extra}]'."
