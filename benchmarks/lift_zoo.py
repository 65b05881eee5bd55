"""Lift every network of keras.applications, prove each lift, and print the table.

    python benchmarks/lift_zoo.py                         # all networks, both policies
    python benchmarks/lift_zoo.py ResNet50 VGG16 --policy preserve

Every network runs in a process of its own, so that memory is given back. Weights are random with sane
statistics (`models.lifting.settle`): the proof is about the lift, not about training.
"""

import argparse
import json
import subprocess
import sys
import time

SIDE = 64
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
DEPTHS = (9, 17, 33, 75)  # the least that a network can do with
HEADS = ("with", "without")


def main() -> int:
    """Print one row per network and policy; return 1 if any lift is not proved."""
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
    print("| network | 2D params (M) | 3D params (M) | policy | largest difference | | lift (s) |")
    print("|---|---|---|---|---|---|---|")
    rows = [
        row
        for name in arguments.networks or application_names()
        for policy in policies
        if (row := run_child(name, policy, arguments.head))
    ]
    proved = sum(row["is_proved"] for row in rows)
    print(f"\n{proved} of {len(rows)} lifts proved (to 1e-4 relative, or inexact as the plan says)")
    return 0 if proved == len(rows) else 1


def run_child(name: str, policy: str, head: str) -> dict:
    """Return and print one network's row, from a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--policy", policy, "--head", head]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"| {name} | | | {policy} | failed: {reason} | | |", flush=True)
        return {"is_proved": False}
    row = json.loads(done.stdout.strip().splitlines()[-1])
    verdict = "exact" if row["difference"] <= 1e-4 else f"inexact, as planned ({row['inexact']} layers)"
    verdict = verdict if row["is_proved"] else "NOT PROVED"
    print(
        f"| {name} | {row['params_2d'] / 1e6:.1f} | {row['params_3d'] / 1e6:.1f} | {policy} "
        f"| {row['difference']:.1e} | {verdict} | {row['lift_s']:.1f} |",
        flush=True,
    )
    return row


def first_plan(network: object, policy: str) -> object:
    """Return the plan with the fewest slices that the network can do with."""
    from models.lifting import LiftError, plan_lift

    for depth in DEPTHS[:-1]:
        try:
            return plan_lift(network, depth=depth, depth_policy=policy)
        except LiftError:
            continue
    return plan_lift(network, depth=DEPTHS[-1], depth_policy=policy)


def prove(name: str, policy: str, head: str) -> dict:
    """Return the figures of one lift."""
    from models.lifting import load_network, verify_lift

    side = SIDES.get(name, SIDE)
    options = {"input_shape": (side, side, 3), "include_top": head == "with"}
    network = load_network(name, **options, **({"classes": 10} if head == "with" else {}))
    begin = time.perf_counter()
    plan = first_plan(network, policy)
    params = plan.build().count_params()
    seconds = time.perf_counter() - begin
    proof = verify_lift(plan, settle=True)
    return {
        "params_2d": network.count_params(),
        "params_3d": params,
        "difference": proof.difference,
        "is_proved": proof.is_proved,
        "inexact": len(proof.inexact),
        "lift_s": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
