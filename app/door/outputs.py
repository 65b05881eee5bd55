"""Whether a command's results can go where they are asked to go, told before anything is computed."""

from __future__ import annotations

from pathlib import Path

from voxlift.app.places import place_problems


def output_file_problems(output: str, *, ending: str, overwrite: bool) -> list[str]:
    """What keeps `output` from becoming a file, as a sentence; nothing where it can.

    Args:
        output: as the user named it.
        ending: of its name, with the dot, in small letters.
        overwrite: whether a file of that name may be replaced.
    """
    path = Path(output).expanduser()
    if path.suffix.lower() != ending:
        return [f"output={output}: expected a name that ends in {ending}."]
    if not path.parent.is_dir():
        return [f"output={output}: there is no folder {path.parent}; make it first."]
    if path.exists() and not overwrite:
        return [f"output={output}: the file exists; choose another, or say overwrite=true."]
    return place_problems(path, asked=f"output={output}")


def output_folder_problems(output: str) -> list[str]:
    """What keeps `output` from becoming a folder of its own, as a sentence; nothing where it can."""
    folder = Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return [f"output={folder}: expected a new or empty folder; choose another."]
    return place_problems(folder, asked=f"output={output}")


def finished_run_problems(run: object) -> list[str]:
    """A sentence where no run is named."""
    return ["run: expected the folder of a finished run; say run=RUN_DIR."] if run is None else []
