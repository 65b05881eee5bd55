"""Files that appear whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a place to write a file at; when the block ends well, it takes the file's name.

    So a kill, or two writers at once, never leave half a file under that name. The place is hidden, lies in
    the same folder and ends like the file, for writers that go by endings.

    Args:
        target: The file; an existing one is replaced.

    Raises:
        OSError: The folder does not exist, or the place cannot be renamed.
    """
    place = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        yield place
        place.replace(target)
    finally:
        place.unlink(missing_ok=True)
