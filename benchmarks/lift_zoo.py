"""Lift every network of keras.applications, or of kimm or keras_hub, verify each lift, and print the table.

    python benchmarks/lift_zoo.py                                  # all networks: four lifts each
    python benchmarks/lift_zoo.py ResNet50 VGG16 --policy preserve --head with
    python benchmarks/lift_zoo.py --zoo kimm                       # one network of each family of kimm
    python benchmarks/lift_zoo.py --zoo kimm-all --head with       # all its networks
    python benchmarks/lift_zoo.py --zoo keras_hub                  # one image classifier of each family

Every network runs in a process of its own, so that its memory is freed, and every finished lift is a row of a
CSV file: an interrupted run resumes. Weights are random, with suitable batch statistics
(`randomise_network`): the proof is about the lift, not about training. Both networks are computed in float64,
where a correct lift differs by about 1e-12 and a wrong one by much more; outputs are logits, without the
softmax. A lift is "proved" if all layers and the outputs agree. Layers that the plan calls inexact at the
border of the volume are not compared, and the layers after them receive the activations of the 2D network.
"""

import argparse
import contextlib
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIDE = 32
SIDES = {  # the smallest that they accept
    "InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "kimm:InceptionV3": 75, "kimm:Xception": 71,
    "kimm:MobileViTXXS": 64, "kimm:MobileViTV2W050": 64,
    "kimm:GhostNetV2W100": 64, "kimm:GhostNetV3W050": 64, "kimm:VGG11": 224,
    "keras_hub:SwinTransformerImageClassifier": 224,
    "keras_hub:MiTImageClassifier": 64, "keras_hub:CSPNetImageClassifier": 64,
}  # fmt: skip
HEAD_SIDES = {"keras_hub:VGGImageClassifier": 224}  # the same of those with a head that alone needs more
ZOOS = ("applications", "kimm", "kimm-all", "keras_hub")
FAMILIES = (  # of kimm, its smallest network of each
    "ConvMixer736D32", "ConvNeXtAtto", "DenseNet121", "EfficientNetB0", "EfficientNetLiteB0",
    "EfficientNetV2B0", "GhostNetW050", "GhostNetV2W100", "GhostNetV3W050", "HGNetTiny", "HGNetV2B0",
    "InceptionNeXtTiny", "InceptionV3", "LCNet035", "MobileNetV2W050", "MobileNetV3W050Small", "MobileOneS0",
    "MobileViTXXS", "MobileViTV2W050", "RegNetX002", "RegNetY002", "RepVGGA0", "ResNet18", "TinyNetE",
    "VGG11", "VisionTransformerTiny16", "Xception",
)  # fmt: skip
HUB = (  # families of keras_hub; those after VGG are not convolutional alone
    "CSPNet", "DenseNet", "EfficientNet", "HGNetV2", "MobileNet", "MobileNetV5", "ResNet", "VGG", "Xception",
    "ViT", "DeiT", "MiT", "SwinTransformer",
)  # fmt: skip
# Tried in this order; some networks accept even depths only.
DEPTHS = {"preserve": (5,), "isotropic": (9, 17, 33, 75, 16, 32, 64)}
POLICIES = tuple(DEPTHS)
HEADS = ("with", "without")
COLUMNS = (
    "network", "policy", "head", "size", "verdict", "difference", "promised", "layers", "layer_count",
    "inexact", "response", "params_2d", "params_3d", "seconds", "reason",
)  # fmt: skip
GOOD = {"proved", "not exact by plan"}
REFUSED = "refused"  # a good result for a network of another library: the reason is printed
Row = dict[str, str]


def main() -> int:
    """Print the table, and return 1 if a lift is less exact than its plan states, or failed."""
    arguments = parse_arguments()
    lifts = [(policy, head) for head in arguments.head or HEADS for policy in arguments.policy or POLICIES]
    if arguments.one:
        finished = json.loads(arguments.skip)
        verify_network(arguments.one, [lift for lift in lifts if list(lift) not in finished])
        return 0
    names = arguments.networks or list_networks(arguments.zoo)
    for index, name in enumerate(names, start=1):
        run_network(name, lifts, arguments.rows, f"{index}/{len(names)}")
    rows = [row for row in read_rows(arguments.rows) if row["network"] in names and _key(row) in lifts]
    print_table(rows)
    print(f"Rows in {arguments.rows}")
    missing = len(names) * len(lifts) - len(rows)
    if missing:
        print(f"{missing} lifts have no result; their error messages are above.")
    is_good = all(row["verdict"] in GOOD or _is_stated(row) for row in rows)
    return 0 if is_good and not missing else 1


def _is_stated(row: Row) -> bool:
    """Return whether a network of another library is refused with a reason."""
    return row["verdict"] == REFUSED and ":" in row["network"] and bool(row["reason"])


def list_networks(zoo: str) -> list[str]:
    """Return the names of the networks of a zoo, one of `ZOOS`."""
    if zoo == "kimm":
        return [f"kimm:{name}" for name in FAMILIES]
    if zoo == "keras_hub":
        return [f"keras_hub:{family}ImageClassifier" for family in HUB]
    if zoo == "kimm-all":
        import kimm

        return [f"kimm:{name}" for name in kimm.list_models()]
    from voxlift.models.loading import application_names

    return list(application_names())


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=[], help="names; all if none")
    parser.add_argument("--zoo", choices=ZOOS, default="applications", help="where all names come from")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="both if not given")
    parser.add_argument("--head", action="append", choices=HEADS, help="both if not given")
    parser.add_argument("--rows", type=Path, default=Path(tempfile.gettempdir()) / "lift_zoo.csv")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--skip", default="[]", help=argparse.SUPPRESS)
    return parser.parse_args()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of the finished lifts."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_network(name: str, lifts: list[tuple[str, str]], path: Path, progress: str) -> None:
    """Verify the lifts of one network that are not finished, in a process of its own; append a row for each.

    Args:
        name: Of the network.
        lifts: (policy, head) of each lift.
        path: CSV file of finished lifts.
        progress: Number of the network among all, to be printed.
    """
    done = [_key(row) for row in read_rows(path) if row["network"] == name]
    if set(lifts) <= set(done):
        return
    choices = [f"--policy={policy}" for policy in {policy for policy, _ in lifts}]
    choices += [f"--head={head}" for head in {head for _, head in lifts}]
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--skip", json.dumps(done), *choices]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        for row in _rows_from(child):
            append_row(path, row)
            print(f"{progress} {name}, {row['policy']}, {row['head']} head: {row['verdict']}", flush=True)
        if child.wait():
            errors.seek(0)
            print(
                f"{progress} {name}: {(errors.read().strip().splitlines() or ['no message'])[-1]}", flush=True
            )


def _rows_from(child: subprocess.Popen[str]) -> Iterator[Row]:
    for line in child.stdout or ():
        if line.startswith("{"):
            yield json.loads(line)


def append_row(path: Path, row: Row) -> None:
    """Append one finished lift."""
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
        by_lift = {_key(row): row for row in rows if row["network"] == name}
        first = by_lift.get(("preserve", "with")) or next(iter(by_lift.values()))
        params = [f"{int(first[key] or 0) / 1e6:.1f}" for key in ("params_2d", "params_3d")]
        figures = [_format_result(by_lift[lift]) if lift in by_lift else "" for lift in lifts]
        print(f"| {' | '.join([name, *params, *figures])} |")
    for row in rows:
        if row["verdict"] == REFUSED:
            print(f"\n{row['network']}, {row['policy']}, {row['head']} head is refused: {row['reason']}")
    counts = Counter((row["policy"], row["verdict"]) for row in rows)
    totals = [f"{count} {policy} {verdict}" for (policy, verdict), count in sorted(counts.items())]
    print(f"\n{len(rows)} lifts: {', '.join(totals)}")


def _format_result(row: Row) -> str:
    if row["verdict"] == "proved":
        return f"{float(row['difference']):.0e}"
    if row["verdict"] == "not exact by plan":
        return f"{float(row['promised']):.0e} but for {row['inexact']} of {row['layer_count']} layers"
    return row["verdict"]


def _key(row: Row) -> tuple[str, str]:
    return row["policy"], row["head"]


def verify_network(name: str, lifts: list[tuple[str, str]]) -> None:
    """Print the row of each lift of one network.

    Args:
        name: Of the network.
        lifts: (policy, head) of each lift.
    """
    import keras

    from voxlift.models.lifting import LiftError, load_network, randomise_network

    for head in dict.fromkeys(head for _, head in lifts):
        side = ({**SIDES, **HEAD_SIDES} if head == "with" else SIDES).get(name, SIDE)
        keras.backend.clear_session()
        options = {"input_shape": (side, side, 3), "include_top": head == "with"}
        network = load_network(name, **options, **({"classes": 10} if head == "with" else {}))
        policies = [policy for policy, each in lifts if each == head]
        with contextlib.suppress(LiftError):  # it is refused below
            randomise_network(plan_smallest_depth(network, policies[0]))
        for policy in policies:
            row = {"network": name, "policy": policy, "head": head, **verify_policy(network, policy)}
            print(json.dumps(row), flush=True)


def verify_policy(network: Any, policy: str) -> dict[str, object]:  # noqa: ANN401  # a Keras model
    """Return the results of one lift."""
    from voxlift.models.lifting import LiftError, verify_lift

    begin = time.perf_counter()
    try:
        plan = plan_smallest_depth(network, policy)
    except LiftError as error:
        problem = error.problems[0]
        reason = f"{problem.kind} {problem.layer}: {problem.reason}"
        return {"verdict": REFUSED, "reason": reason, "params_2d": network.count_params()}
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


def plan_smallest_depth(network: object, policy: str) -> object:
    """Return the plan with the smallest depth of `DEPTHS` that the network accepts."""
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
