"""One measurement in a process of its own: `python -m voxlift.app.studies.measure FOLDER`.

The folder holds `config.yaml`, a training's settings, and `request.json`; the answer goes to `answer.json`.
What runs out of memory here harms nothing but itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.studies.measurements import MEASUREMENTS


def main() -> int:
    """Measure what the folder asks for."""
    folder = Path(sys.argv[1])
    request = read_json(folder / "request.json")
    settings = load_settings(RunFolder(folder))
    write_json(folder / "answer.json", MEASUREMENTS[request["kind"]](settings, request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
