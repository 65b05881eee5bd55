"""`voxlift-lift`: a 2D network lifted to 3D, its plan printed, its lift proved, the model written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.cli.command import open_command, reader
from voxlift.app.config import INITS, LiftSettings, choice_problem, count_problem, depth_policy_problems
from voxlift.app.errors import UserError
from voxlift.app.files import output_file_problems
from voxlift.app.progress import say
from voxlift.app.runs.folder import hint_at_runs
from voxlift.app.runs.networks import save_network
from voxlift.app.runtime.precision import rounding_tolerance
from voxlift.app.training.pretrained import check_slice_run, load_trained

if TYPE_CHECKING:
    from voxlift.models.lifting import LiftPlan


def main() -> None:
    """The console script."""
    open_command("lift", read=reader(LiftSettings, find_problems), job=lift, is_supervised=True)


def find_problems(settings: LiftSettings) -> list[str]:
    """One sentence for each thing wrong with the settings, before any network is touched."""
    return [*_network_problems(settings), *_size_problems(settings), *_output_problems(settings)]


def lift(settings: LiftSettings) -> int:
    """Print the plan; unless that is all, build the network, prove the lift and write the model.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, LiftError: the network cannot be had, or cannot be lifted.
        UserError: the lift did not prove itself; nothing is written.
    """
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()
    import keras

    keras.utils.set_random_seed(settings.seed)
    plan = _plan(settings, _network(settings))
    say(str(plan))
    if settings.plan_only or settings.output is None:
        return 0
    network = plan.build()
    if settings.verify:
        _prove(plan, settings)
    target = Path(settings.output).expanduser()
    save_network(network, target)
    say(f"Model in {target}")
    return 0


def _network(settings: LiftSettings) -> Any:  # noqa: ANN401 - as above
    """The 2D network with the weights asked for."""
    from voxlift.models.lifting import load_network

    name = str(settings.network)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return load_trained(folder)
    if folder.suffix == ".keras" and settings.weights is None:
        return load_trained(folder)
    shape = settings.input_shape
    # A named network without weights to keep is made for the planes asked for, its dense layers too.
    is_made = settings.weights is None and shape is not None and folder.suffix != ".keras"
    return load_network(
        folder if folder.suffix == ".keras" else name,
        weights=settings.weights,
        input_shape=(shape[1], shape[2], 3) if is_made and shape is not None else None,
        include_top=settings.include_top,
    )


def _plan(settings: LiftSettings, network: Any) -> LiftPlan:  # noqa: ANN401 - as above
    from voxlift.models.lifting import plan_lift

    shape = settings.input_shape
    depth = settings.depth if shape is None else shape[0]
    planes = tuple(network.input_shape[1:3]) if isinstance(network.input_shape, tuple) else None
    keeps_planes = shape is None or planes == tuple(shape[1:])
    return plan_lift(
        network,
        depth=depth,
        input_shape=None if keeps_planes else shape,
        depth_policy=settings.depth_policy,
        spacing=settings.spacing,
        init=settings.init,
        channels=settings.channels,
        filters=settings.filters,
        classes=settings.classes,
        logits=settings.logits,
    )


def _prove(plan: LiftPlan, settings: LiftSettings) -> None:
    from voxlift.models.lifting import verify_lift

    is_random = settings.weights is None and not _is_file_or_folder(settings)
    tolerance = rounding_tolerance(plan.model_2d)
    proof = verify_lift(plan, seed=settings.seed, settle=is_random, tolerance=tolerance)
    say(f"\n{proof}")
    if proof.is_refuted:
        raise UserError(
            f"{plan.model_2d.name}: expected the lifted network to agree with the 2D one to "
            f"{proof.tolerance:g}; it differs by {max(proof.difference, proof.scheme_difference):.1e}. "
            "Nothing is written; verify=false writes it all the same."
        )


def _is_file_or_folder(settings: LiftSettings) -> bool:
    path = Path(str(settings.network)).expanduser()
    return path.suffix == ".keras" or path.is_dir()


def _network_problems(settings: LiftSettings) -> list[str]:
    if settings.network is None:
        return [
            "network: expected a name of keras.applications, a .keras file or a run folder; say network=..."
        ]
    path = Path(settings.network).expanduser()
    if path.is_dir():
        return check_slice_run(path, key="network")
    is_missing = (path.suffix == ".keras" or len(path.parts) > 1) and not path.is_file()
    none = f"network={settings.network}: expected a .keras file or a run folder; there is none."
    problems = [f"{none} {hint_at_runs(path)}"]
    weights = settings.weights
    has_weights = weights in (None, "imagenet") or Path(weights).expanduser().is_file()
    return [
        *(problems if is_missing else []),
        *([] if has_weights else [f"weights={weights}: expected imagenet or a file; there is no such file."]),
    ]


def _size_problems(settings: LiftSettings) -> list[str]:
    shape, depth, policy = settings.input_shape, settings.depth, settings.depth_policy
    problems = choice_problem("init", settings.init, INITS)
    problems += depth_policy_problems("depth_policy", policy)
    if policy == "spacing" and settings.spacing is None:
        problems.append("spacing: depth_policy=spacing needs it; say 'spacing=[depth,height,width]' in mm.")
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        problems.append(f"input_shape: expected [depth,height,width] in voxels; received {shape}.")
    elif shape is not None and depth not in (None, shape[0]):
        problems.append(f"depth={depth}: input_shape says {shape[0]}; say one of them.")
    counts = {"depth": depth, "channels": settings.channels, "classes": settings.classes}
    return problems + [one for key, count in counts.items() for one in count_problem(key, count)]


def _output_problems(settings: LiftSettings) -> list[str]:
    if settings.plan_only:
        return []
    if settings.output is None:
        return [
            "output: where should the model go? Say output=NAME.keras, or plan_only=true for the plan alone."
        ]
    return output_file_problems(settings.output, ending=".keras", overwrite=settings.overwrite)


if __name__ == "__main__":
    main()
