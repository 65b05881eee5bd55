"""`voxlift-lift`: lift a 2D network to 3D: print the plan, verify the lift numerically, write the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import (
    INITS,
    LiftSettings,
    find_choice_problems,
    find_count_problems,
    find_depth_policy_problems,
)
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import UserError, refuse_problems
from voxlift.app.files import find_output_file_problems
from voxlift.app.progress import console, print_line
from voxlift.app.runs.folder import save_network
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.setup import import_user_modules, rounding_tolerance
from voxlift.app.training.baseline import check_slice_run, load_trained

if TYPE_CHECKING:
    from voxlift.models.lifting import LiftPlan


def main() -> None:
    """Run the console script."""
    run_command("lift", read=read_settings, job=lift, is_supervised=True)


def read_settings(cfg: DictConfig) -> LiftSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, LiftSettings)
    refuse_problems(find_problems(settings))
    return settings


def lift(settings: LiftSettings) -> int:
    """Print the plan; unless that is all, build the network, verify the lift and write the model.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, LiftError: The network cannot be loaded or lifted.
        UserError: The lift did not pass the check; nothing is written.
    """
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()
    import_user_modules(settings.custom)
    import keras

    keras.utils.set_random_seed(settings.seed)
    network = _load(settings)
    plan = _plan(settings, network if settings.classes is None else _without_output_layer(network))
    print_line(plan.format(console.width) if console.is_terminal else str(plan))
    if settings.plan_only or settings.output is None:
        return DONE
    network = plan.build()
    if settings.verify:
        _verify(plan, settings)
    target = Path(settings.output).expanduser()
    save_network(network, target)
    print_line(f"Model in {target}")
    return DONE


def _load(settings: LiftSettings) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the 2D network with the chosen weights."""
    from voxlift.models.lifting import load_network

    name = str(settings.network)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return load_trained(folder)
    if folder.suffix == ".keras" and settings.weights is None:
        return load_trained(folder)
    shape = settings.input_shape
    # A named network with random weights is built for the wanted planes, including its dense layers.
    is_built_for_shape = settings.weights is None and shape is not None and folder.suffix != ".keras"
    return load_network(
        folder if folder.suffix == ".keras" else name,
        weights=settings.weights,
        input_shape=(shape[1], shape[2], 3) if is_built_for_shape and shape is not None else None,
        include_top=settings.include_top,
    )


def _without_output_layer(network: Any) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the network up to its dense layer, which a new head replaces."""
    from voxlift.models.heads import has_output_layer, strip_output_layer

    if has_output_layer(network):
        print_line(
            f"classes: the layer {network.layers[-1].name} of another task, which follows the last dense "
            "layer, is removed."
        )
    return strip_output_layer(network)


def _plan(settings: LiftSettings, network: Any) -> LiftPlan:  # noqa: ANN401 - as above
    from voxlift.models.lifting import plan_lift

    shape = settings.input_shape
    depth = settings.depth if shape is None else shape[0]
    planes = tuple(network.input_shape[1:3]) if isinstance(network.input_shape, tuple) else None
    has_same_planes = shape is None or planes == tuple(shape[1:])
    return plan_lift(
        network,
        depth=depth,
        input_shape=None if has_same_planes else shape,
        depth_policy=settings.depth_policy,
        spacing=settings.spacing,
        init=settings.init,
        channels=settings.channels,
        filters=settings.filters,
        classes=settings.classes,
        logits=settings.logits,
    )


def _verify(plan: LiftPlan, settings: LiftSettings) -> None:
    from voxlift.models.lifting import verify_lift

    is_random = settings.weights is None and not _is_file_or_folder(settings)
    tolerance = rounding_tolerance(plan.model_2d)
    proof = verify_lift(plan, seed=settings.seed, random_weights=is_random, tolerance=tolerance)
    print_line(f"\n{proof}")
    if proof.is_refuted:
        raise UserError(
            f"{plan.model_2d.name}: expected the lifted network to agree with the 2D one to "
            f"{proof.tolerance:g}; it differs by {max(proof.difference, proof.scheme_difference):.1e}. "
            "Nothing is written; with verify=false it is written without this check."
        )


def _is_file_or_folder(settings: LiftSettings) -> bool:
    path = Path(str(settings.network)).expanduser()
    return path.suffix == ".keras" or path.is_dir()


def find_problems(settings: LiftSettings) -> list[str]:
    """Return one sentence for each problem in the settings."""
    return [
        *_find_network_problems(settings),
        *_find_size_problems(settings),
        *_find_output_problems(settings),
    ]


def _find_network_problems(settings: LiftSettings) -> list[str]:
    if settings.network is None:
        return [
            "network: expected a name of keras.applications, a .keras file or a run folder; set network=..."
        ]
    path = Path(settings.network).expanduser()
    if path.is_dir():
        return check_slice_run(path, key="network")
    is_missing = (path.suffix == ".keras" or len(path.parts) > 1) and not path.is_file()
    problems = []
    if is_missing:
        expected = f"network={settings.network}: expected a .keras file or a run folder; found none there."
        problems.append(f"{expected} {suggest_runs(path)}")
    weights = settings.weights
    if weights not in (None, "imagenet") and not Path(weights).expanduser().is_file():
        problems.append(f"weights={weights}: expected imagenet or a file; there is no such file.")
    return problems


def _find_size_problems(settings: LiftSettings) -> list[str]:
    shape, depth, policy = settings.input_shape, settings.depth, settings.depth_policy
    problems = find_choice_problems("init", settings.init, INITS)
    problems += find_depth_policy_problems("depth_policy", policy)
    if policy == "spacing" and settings.spacing is None:
        problems.append("spacing: depth_policy=spacing needs it; set 'spacing=[depth,height,width]' in mm.")
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        problems.append(f"input_shape: expected [depth,height,width] in voxels; received {shape}.")
    elif shape is not None and depth not in (None, shape[0]):
        problems.append(f"depth={depth}: expected {shape[0]} as in input_shape; set only one of the two.")
    counts = {"depth": depth, "channels": settings.channels, "classes": settings.classes}
    return problems + [one for key, count in counts.items() for one in find_count_problems(key, count)]


def _find_output_problems(settings: LiftSettings) -> list[str]:
    if settings.plan_only:
        return []
    if settings.output is None:
        return ["output: expected a .keras file to write; set output=NAME.keras, or plan_only=true."]
    return find_output_file_problems(settings.output, ending=".keras", overwrite=settings.overwrite)


if __name__ == "__main__":
    main()
