"""From the command to the result on real-sized volumes: Voxlift beside MONAI and PyTorch, in one run.

    python benchmarks/time_to_verdict.py                                    200 volumes of 160x192x160 to 96^3
    python benchmarks/time_to_verdict.py --volumes 20 --size 24 32 28 --side 16 --epochs 1            a trial
    python benchmarks/time_to_verdict.py --peer-python OTHER/bin/python     MONAI in another environment

Both read the same simulated .nii.gz files for the first time, resample and rescale them, keep what they
prepared on disk, train the same flat CNN for as many epochs in bfloat16, and score the test split with its
AUC. The peer uses `PersistentDataset`, a DataLoader with workers, channels last and autocast. Ours checks for
leaks and writes a page with intervals besides. Each runs alone; the seconds of each phase are printed.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COLUMNS = ("who", "phase", "seconds")
SPACING = 1.0  # mm of the simulated volumes
PARTS = (0.6, 0.8)  # ends of the training and validation parts


def main() -> int:
    """Measure both, print the phases, write the CSV file, and return the exit status."""
    options = parse_arguments()
    if options.peer:
        print(json.dumps(run_peer(Path(options.peer), options)))
        return 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_volumes(folder, options)
        for who, measure in (("voxlift", run_voxlift), ("monai", run_peer_apart)):
            if who in options.who:
                rows += [{"who": who, **row} for row in measure(folder, options)]
    write_csv(options.output, rows)
    totals = {row["who"]: row["seconds"] for row in rows if row["phase"] == "all"}
    for row in rows:
        print(f"{row['who']:8} {row['phase']:44} {row['seconds']:8.1f} s")
    if len(totals) > 1:
        print(f"Ratio monai / voxlift: {totals['monai'] / totals['voxlift']:.2f}")
    print(f"Table in {options.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=3, default=[160, 192, 160], help="voxels of each file")
    parser.add_argument("--side", type=int, default=96, help="voxels along each axis after preprocessing")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--who", nargs="+", choices=("voxlift", "monai"), default=("voxlift", "monai"))
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with PyTorch and MONAI")
    parser.add_argument("--folder", type=Path, help="for the volumes, removed afterwards; default: a new one")
    parser.add_argument("--output", type=Path, default=Path("time_to_verdict.csv"))
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_volumes(folder: Path, options: argparse.Namespace) -> None:
    """Write smooth random volumes, one class with a brighter block, and their table with splits."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import zoom

    rng, rows = np.random.default_rng(0), []
    for k in range(options.volumes):
        coarse = rng.normal(400, 120, [max(2, side // 8) for side in options.size])
        voxels = zoom(
            coarse, [size / side for size, side in zip(options.size, coarse.shape, strict=True)], order=1
        )
        voxels += rng.normal(0, 10, voxels.shape)
        if k % 2:
            voxels[tuple(slice(side // 3, side // 2) for side in options.size)] += 300
        image = nib.Nifti1Image(voxels.clip(0, 4000).astype(np.int16), np.diag([SPACING] * 3 + [1]))
        image.to_filename(folder / f"{k:04}.nii.gz")
        share = k / options.volumes
        split = "train" if share < PARTS[0] else "val" if share < PARTS[1] else "test"
        rows.append({"subject": f"s{k:04}", "file": f"{k:04}.nii.gz", "label": "ab"[k % 2], "split": split})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("subject", "file", "label", "split"))
        writer.writeheader()
        writer.writerows(rows)


def target_spacing(options: argparse.Namespace) -> list[float]:
    """Return the mm (depth, height, width) of the prepared grid, which covers the volume."""
    return [SPACING * side / options.side for side in reversed(options.size)]


def run_voxlift(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of the command, and of the phases by the times in its log."""
    spacing = ",".join(f"{value:.6g}" for value in target_spacing(options))
    command = [
        sys.executable, "-P", "-m", "voxlift.app.cli.train",
        "data=manifest", f"data.table={folder}/labels.csv",
        "data.image_column=file", "data.subject_column=subject", "data.split_column=split", "preprocess=mri",
        f"preprocess.spacing=[{spacing}]", f"preprocess.shape=[{options.side},{options.side},{options.side}]",
        f"model.filters={options.filters}".replace(" ", ""), "augment=none",
        f"trainer.epochs={options.epochs}", f"trainer.batch_size={options.batch}", "precision=mixed_bfloat16",
        "logger=none", f"cache.folder={folder}/cache", f"run_dir={folder}/run",
    ]  # fmt: skip
    began, rows, last, phase = time.perf_counter(), [], 0.0, "start, table"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            found = next((name for mark, name in MARKS.items() if line.startswith(mark)), None)
            if found and found != phase:
                now = time.perf_counter() - began
                rows.append({"phase": phase, "seconds": round(now - last, 2)})
                last, phase = now, found
            print(line, end="", file=sys.stderr)
    if process.returncode:
        sys.exit(f"voxlift-train ended with status {process.returncode}.")
    total = time.perf_counter() - began
    return [
        *rows,
        {"phase": phase, "seconds": round(total - last, 2)},
        {"phase": "all", "seconds": round(total, 2)},
    ]


MARKS = {  # first words of lines of voxlift-train, and the phase that begins with each
    "Cache:": "files to cache, leak check, preflight",
    "epoch 1/": "first epoch is over: others, scores, page",
}


def run_peer_apart(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the phases of the peer, run in a process of its own, with its start."""
    command = [options.peer_python, __file__, *sys.argv[1:], "--peer", str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    total = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"The peer ended with status {done.returncode}; its message is above.")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    start = total - sum(row["seconds"] for row in rows)
    start_row = {"phase": "start of Python", "seconds": round(start, 2)}
    return [start_row, *rows, {"phase": "all", "seconds": round(total, 2)}]


def run_peer(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the twin with MONAI and PyTorch, and return the seconds of its phases."""
    began = time.perf_counter()
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # MONAI would import it
    import numpy as np
    import torch
    from monai.data import DataLoader, PersistentDataset
    from monai.metrics import compute_roc_auc
    from step_networks import build_torch_cnn

    rows = [{"phase": "imports", "seconds": time.perf_counter() - began}]
    torch.set_num_threads(os.cpu_count() or 1)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    loaders = {}
    for part in ("train", "val", "test"):
        items = [
            {"image": str(folder / row["file"]), "label": int(row["label"] == "b")}
            for row in table
            if row["split"] == part
        ]
        data = PersistentDataset(items, build_transform(options), cache_dir=folder / "monai")
        loaders[part] = DataLoader(
            data, batch_size=options.batch, shuffle=part == "train", num_workers=options.workers
        )
    layout = torch.channels_last_3d
    network = build_torch_cnn(torch, tuple(options.filters), 2).to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)

    def run_network(batch: Any) -> Any:  # noqa: ANN401 - tensors
        with torch.autocast("cpu", torch.bfloat16):
            return network(batch["image"].to(memory_format=layout)).float()

    def score(part: str) -> float:
        network.eval()
        with torch.inference_mode():
            found = [(run_network(batch), batch["label"]) for batch in loaders[part]]
        logits, labels = (torch.cat(one) for one in zip(*found, strict=True))
        return float(compute_roc_auc(torch.softmax(logits, 1)[:, 1], labels))

    for epoch in range(options.epochs):
        began = time.perf_counter()
        network.train()
        for batch in loaders["train"]:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(run_network(batch), batch["label"])
            loss.backward()
            optimizer.step()
        score("val")
        name = "first epoch with validation" if epoch == 0 else "an epoch with validation"
        rows.append({"phase": name, "seconds": time.perf_counter() - began})
    began = time.perf_counter()
    auc = score("test")
    rows.append(
        {"phase": f"scores of the test split (AUC {auc:.3f})", "seconds": time.perf_counter() - began}
    )
    return [{**row, "seconds": round(float(np.float64(row["seconds"])), 2)} for row in rows]


def build_transform(options: argparse.Namespace) -> Any:  # noqa: ANN401 - of MONAI
    """Return what the preprocessing of `run_voxlift` is in MONAI."""
    from monai import transforms

    return transforms.Compose(
        [
            transforms.LoadImaged("image", ensure_channel_first=True),
            transforms.Orientationd("image", "RAS"),
            transforms.Spacingd("image", tuple(reversed(target_spacing(options)))),
            transforms.ResizeWithPadOrCropd("image", (options.side,) * 3),
            transforms.ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0, 1, clip=True),
            transforms.NormalizeIntensityd("image"),
            transforms.EnsureTyped("image", track_meta=False),  # plain tensors, as the fastest form
        ]
    )


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
