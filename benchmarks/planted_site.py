"""Hold one half of SOOP out as an invented site, and plant a shift in three quarters of its scans.

    python benchmarks/planted_site.py DATA OUTPUT

DATA is the folder with `labels.csv`. OUTPUT receives `site_a.csv`, the table of the first half with the files
as they are; `site_b.csv` with the scans of the second half in `site_b/`; and `sites.csv`, both halves. The
column `shift` says what was planted there: `none`, `grid` (3 x 2 x 2 mm in place of 1 mm), `axes` (stored as
PIR in place of LAS), or `thickness` (the mask grown by 3 mm). Halves and shifts are drawn by a fixed seed.
"""

import argparse
import csv
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output
from scipy.ndimage import binary_dilation

SHIFTS = ("none", "grid", "axes", "thickness")


def main() -> None:
    """Write both tables, and the scans of the invented site."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--label", default="nihss", help="column that every subject must have")
    arguments = parser.parse_args()
    rows = [row for row in read_table(arguments.data / "labels.csv") if row[arguments.label] != "n/a"]
    order = np.random.default_rng(0).permutation(len(rows))
    half = len(rows) // 2
    files = arguments.output / "site_b"
    files.mkdir(parents=True, exist_ok=True)
    site_a = [
        rows[i] | {"file": str((arguments.data / rows[i]["file"]).absolute()), "site": "A", "shift": "none"}
        for i in sorted(order[:half])
    ]
    site_b = []
    for number, i in enumerate(order[half:]):
        shift, target = SHIFTS[number % len(SHIFTS)], files / Path(rows[i]["file"]).name
        nib.save(plant(nib.load(arguments.data / rows[i]["file"]), shift), target)
        site_b.append(rows[i] | {"file": f"site_b/{target.name}", "site": "B", "shift": shift})
    write_table(arguments.output / "site_a.csv", site_a)
    write_table(arguments.output / "site_b.csv", site_b)
    placed = [row | {"file": str((arguments.output / row["file"]).absolute())} for row in site_b]
    write_table(arguments.output / "sites.csv", site_a + placed)


def plant(image: nib.Nifti1Image, shift: str) -> nib.Nifti1Image:
    """Return a mask with a shift planted in it."""
    if shift == "grid":
        moved = resample_to_output(image, (2, 2, 3), order=0)
        return nib.Nifti1Image(np.asarray(moved.dataobj).astype(np.uint8), moved.affine)
    if shift == "axes":
        codes = nib.orientations.axcodes2ornt("PIR")
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), codes)
        return image.as_reoriented(turn)
    if shift == "thickness":
        grown = binary_dilation(np.asarray(image.dataobj) > 0, iterations=3).astype(np.uint8)
        return nib.Nifti1Image(grown, image.affine)
    return image


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
