"""Lift every network of keras.applications, prove each lift, and print the table.

    python benchmarks/lift_zoo.py                                  # all networks: four lifts each
    python benchmarks/lift_zoo.py ResNet50 VGG16 --policy preserve --head with

Every network runs in a process of its own, so that memory is given back, and every finished lift is a row in
a CSV: an interrupted run goes on where it stopped. Weights are random with sane statistics
(`models.lifting.verification.random_data`): the proof is about the lift, not about training. Both networks are computed in
float64, so that a right lift differs by about 1e-12 and a wrong one by far more; outputs are logits, without
the softmax. A lift is "proved" where all layers and the outputs agree. Where the plan names layers that are
inexact at the border of the volume, these are left out, and every layer behind them is fed with what 2D has
there.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SIDE = 32
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # the least that they take
DEPTHS = {"preserve": (5,), "isotropic": (9, 17, 33, 75)}  # the least that a network can do with
POLICIES = tuple(DEPTHS)
HEADS = ("with", "without")
COLUMNS = (
    "network", "policy", "head", "size", "verdict", "difference", "promised", "layers", "layer_count",
    "inexact", "response", "params_2d", "params_3d", "seconds", "reason",
)  # fmt: skip
GOOD = {"proved", "not exact by plan"}
Row = dict[str, str]


def main() -> int:
    """Print the table; return 1 if any lift breaks its plan's promise, or was not made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=[], help="names; all if none")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="both if not given")
    parser.add_argument("--head", action="append", choices=HEADS, help="both if not given")
    parser.add_argument("--rows", type=Path, default=Path(tempfile.gettempdir()) / "lift_zoo.csv")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--skip", default="[]", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = [(policy, head) for head in arguments.head or HEADS for policy in arguments.policy or POLICIES]
    if arguments.one:
        prove_all(arguments.one, [each for each in wanted if list(each) not in json.loads(arguments.skip)])
        return 0
    names = arguments.networks or network_names()
    for index, name in enumerate(names, start=1):
        run_network(name, wanted, arguments.rows, f"{index}/{len(names)}")
    rows = [row for row in read_rows(arguments.rows) if row["network"] in names and _key(row) in wanted]
    print_table(rows)
    print(f"Rows in {arguments.rows}")
    missing = len(names) * len(wanted) - len(rows)
    if missing:
        print(f"{missing} lifts ended without a verdict; their last words stand above")
    return 0 if {row["verdict"] for row in rows} <= GOOD and not missing else 1


def network_names() -> list[str]:
    """Return the names of all networks."""
    from voxlift.models.loading import application_names

    return list(application_names())


def read_rows(path: Path) -> list[Row]:
    """Return the finished lifts."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_network(name: str, wanted: list[tuple[str, str]], path: Path, place: str) -> None:
    """Prove what is not proved yet of one network, in a process of its own; append a row for each lift.

    Args:
        name: Of the network.
        wanted: (policy, head) of each lift.
        path: The CSV of finished lifts.
        place: Of the network among all, to be printed.
    """
    done = [_key(row) for row in read_rows(path) if row["network"] == name]
    if set(wanted) <= set(done):
        return
    choices = [f"--policy={policy}" for policy in {policy for policy, _ in wanted}]
    choices += [f"--head={head}" for head in {head for _, head in wanted}]
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--skip", json.dumps(done), *choices]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        for row in _rows_from(child):
            append_row(path, row)
            print(f"{place} {name}, {row['policy']}, {row['head']} head: {row['verdict']}", flush=True)
        if child.wait():
            errors.seek(0)
            print(f"{place} {name}: {(errors.read().strip().splitlines() or ['no message'])[-1]}", flush=True)


def _rows_from(child: subprocess.Popen[str]) -> Iterator[Row]:
    for line in child.stdout or ():
        if line.startswith("{"):
            yield json.loads(line)


def append_row(path: Path, row: Row) -> None:
    """Write one finished lift behind those that are there."""
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def print_table(rows: list[Row]) -> None:
    """Print one line per network, one column per lift."""
    lifts = [(policy, head) for policy in POLICIES for head in HEADS]
    titles = [f"{policy}, {head} head" for policy, head in lifts]
    print(f"\n| network | params 2D (M) | 3D (M) | {' | '.join(titles)} |")
    print("|---" * (3 + len(lifts)) + "|")
    for name in dict.fromkeys(row["network"] for row in rows):
        cells = {_key(row): row for row in rows if row["network"] == name}
        first = cells.get(("preserve", "with")) or next(iter(cells.values()))
        params = [f"{int(first[key]) / 1e6:.1f}" for key in ("params_2d", "params_3d")]
        figures = [_cell(cells[lift]) if lift in cells else "" for lift in lifts]
        print(f"| {' | '.join([name, *params, *figures])} |")
    counts = Counter((row["policy"], row["verdict"]) for row in rows)
    spoken = [f"{count} {policy} {verdict}" for (policy, verdict), count in sorted(counts.items())]
    print(f"\n{len(rows)} lifts: {', '.join(spoken)}")


def _cell(row: Row) -> str:
    if row["verdict"] == "proved":
        return f"{float(row['difference']):.0e}"
    if row["verdict"] == "not exact by plan":
        return f"{float(row['promised']):.0e} but for {row['inexact']} of {row['layer_count']} layers"
    return row["verdict"]


def _key(row: Row) -> tuple[str, str]:
    return row["policy"], row["head"]


def prove_all(name: str, wanted: list[tuple[str, str]]) -> None:
    """Print the row of each lift of one network.

    Args:
        name: Of the network.
        wanted: (policy, head) of each lift.
    """
    import keras

    from voxlift.models.lifting import load_network, randomise_network

    side = SIDES.get(name, SIDE)
    for head in dict.fromkeys(head for _, head in wanted):
        keras.backend.clear_session()
        options = {"input_shape": (side, side, 3), "include_top": head == "with"}
        network = load_network(name, **options, **({"classes": 10} if head == "with" else {}))
        policies = [policy for policy, each in wanted if each == head]
        randomise_network(first_plan(network, policies[0]))
        for policy in policies:
            print(
                json.dumps({"network": name, "policy": policy, "head": head, **prove(network, policy)}),
                flush=True,
            )


def prove(network: object, policy: str) -> dict[str, object]:
    """Return the figures of one lift."""
    from voxlift.models.lifting import verify_lift

    begin = time.perf_counter()
    plan = first_plan(network, policy)
    proof = verify_lift(plan, precision="float64")
    return {
        "size": "x".join(map(str, plan.graph.inputs[0].shape[1:4])),
        "verdict": proof.verdict,
        "difference": proof.difference,
        "promised": proof.promised_difference,
        "layers": proof.layers,
        "layer_count": proof.layer_count,
        "inexact": len(proof.inexact),
        "response": proof.response,
        "params_2d": plan.model_2d.count_params(),
        "params_3d": sum(row["params_3d"] for row in plan.rows()),
        "seconds": round(time.perf_counter() - begin, 1),
        "reason": proof.worst_layer,
    }


def first_plan(network: object, policy: str) -> object:
    """Return the plan with the fewest slices that the network can do with."""
    from voxlift.models.lifting import LiftError, plan_lift

    *depths, last = DEPTHS[policy]
    for depth in depths:
        try:
            return plan_lift(network, depth=depth, depth_policy=policy)
        except LiftError:
            continue
    return plan_lift(network, depth=last, depth_policy=policy)


if __name__ == "__main__":
    sys.exit(main())
