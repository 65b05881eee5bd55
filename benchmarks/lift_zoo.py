"""Lift every network of keras.applications, prove each lift, and print the table.

    python benchmarks/lift_zoo.py                         # all networks, both policies
    python benchmarks/lift_zoo.py ResNet50 VGG16 --policy preserve

Every network runs in a process of its own, so that memory is given back. Weights are random with sane
statistics (`models.lifting.settle`): the proof is about the lift, not about training. Both networks are
computed in float64, so that a right lift differs by about 1e-12 and a wrong one by far more. The first figure
is of the outputs; the second of the worst layer among those that the plan calls exact.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter

SIDE = 64
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
DEPTHS = {"preserve": (5,), "isotropic": (9, 17, 33, 75)}  # the least that a network can do with
HEADS = ("with", "without")


def main() -> int:
    """Print one row per network and policy; return 1 if any lift breaks its plan's promise."""
    from models.lifting import application_names

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=[], help="names; all if none")
    parser.add_argument("--policy", action="append", choices=["preserve", "isotropic"])
    parser.add_argument("--head", choices=HEADS, default="with")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    policies = arguments.policy or ["preserve", "isotropic"]
    if arguments.one:
        print(json.dumps(prove(arguments.one, policies[0], arguments.head)))
        return 0
    print("| network | params 2D (M) | 3D (M) | policy | outputs differ | exact layers differ | verdict |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = [
        row
        for name in arguments.networks or application_names()
        for policy in policies
        if (row := run_child(name, policy, arguments.head))
    ]
    verdicts = Counter(row["verdict"] for row in rows)
    print(f"\n{len(rows)} lifts: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    return 0 if set(verdicts) <= {"proved", "not exact by plan"} else 1


def run_child(name: str, policy: str, head: str) -> dict:
    """Return and print one network's row, from a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--policy", policy, "--head", head]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"| {name} | | | {policy} | | | failed: {reason} |", flush=True)
        return {"verdict": "failed"}
    row = json.loads(done.stdout.strip().splitlines()[-1])
    because = f" ({row['inexact']} layers named)" if row["verdict"] == "not exact by plan" else ""
    print(
        f"| {name} | {row['params_2d'] / 1e6:.1f} | {row['params_3d'] / 1e6:.1f} | {policy} "
        f"| {row['difference']:.1e} | {row['promised']:.1e} | {row['verdict']}{because} |",
        flush=True,
    )
    return row


def first_plan(network: object, policy: str) -> object:
    """Return the plan with the fewest slices that the network can do with."""
    from models.lifting import LiftError, plan_lift

    *depths, last = DEPTHS[policy]
    for depth in depths:
        try:
            return plan_lift(network, depth=depth, depth_policy=policy)
        except LiftError:
            continue
    return plan_lift(network, depth=last, depth_policy=policy)


def prove(name: str, policy: str, head: str) -> dict:
    """Return the figures of one lift."""
    from models.lifting import load_network, verify_lift

    side = SIDES.get(name, SIDE)
    options = {"input_shape": (side, side, 3), "include_top": head == "with"}
    network = load_network(name, **options, **({"classes": 10} if head == "with" else {}))
    plan = first_plan(network, policy)
    proof = verify_lift(plan, settle=True, precision="float64")
    return {
        "params_2d": network.count_params(),
        "params_3d": sum(row["params_3d"] for row in plan.rows()),
        "difference": proof.difference,
        "promised": proof.promised_difference,
        "verdict": proof.verdict,
        "inexact": len(proof.inexact),
    }


if __name__ == "__main__":
    sys.exit(main())
