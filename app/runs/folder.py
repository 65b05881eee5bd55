"""The run folder: its files, how it is created and opened, and the networks in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.config import SettingsError
from voxlift.app.files import refuse_unwritable
from voxlift.app.runs.suggestions import describe_used_folder, suggest_runs
from voxlift.app.runtime.setup import import_quietly, protect_scoring
from voxlift.data_pipelines.files import atomic_write, is_leftover, remove_leftovers


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """`config.yaml`: the resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """`environment.json`: versions, device and precision."""
        return self.path / "environment.json"

    @property
    def preflight(self) -> Path:
        """`preflight.json`: shapes, memory and rates, measured before the first epoch."""
        return self.path / "preflight.json"

    @property
    def splits(self) -> Path:
        """`splits.csv`: subject, image, label, split, row in the table, mask or centre, per volume."""
        return self.path / "splits.csv"

    @property
    def subjects(self) -> Path:
        """`subjects.csv`: the table's columns and facts of the files, per volume."""
        return self.path / "subjects.csv"

    @property
    def flow(self) -> Path:
        """`flow.csv`: how many rows were read, left out (by reason) and used."""
        return self.path / "flow.csv"

    @property
    def table_one(self) -> Path:
        """`table1.csv`: age, sex, site and other columns of the subjects in each split."""
        return self.path / "table1.csv"

    @property
    def columns(self) -> Path:
        """`columns.json`: how columns of the table become an input; of a regression also its coefficients."""
        return self.path / "columns.json"

    @property
    def ablation(self) -> Path:
        """`ablation.csv`: as `predictions.csv`, where the image or the table is blanked (in `split`)."""
        return self.path / "ablation.csv"

    @property
    def images(self) -> Path:
        """`images.json`: the files of each volume and a hash of its voxels, when the training began."""
        return self.path / "images.json"

    @property
    def left_out(self) -> Path:
        """`left_out.csv`: unusable files that `data.on_bad_file=skip` left out, with the reason."""
        return self.path / "left_out.csv"

    @property
    def training_range(self) -> Path:
        """`training_range.json`: spacing, size, orientation and intensities of the training volumes."""
        return self.path / "training_range.json"

    @property
    def history(self) -> Path:
        """`history.csv`: one row per epoch, from 1."""
        return self.path / "history.csv"

    @property
    def checkpoints(self) -> Path:
        """`checkpoints/`: the newest training states, from which `resume=` continues."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """`model.keras`: the network with the best weights, from volumes to float32 logits."""
        return self.path / "model.keras"

    @property
    def untrained(self) -> Path:
        """`untrained.keras`: the network that a function of the user built, for a resumed training."""
        return self.path / "untrained.keras"

    @property
    def coefficients(self) -> Path:
        """`coefficients.csv`: instead of `model.keras` in a regression on columns of the table."""
        return self.path / "coefficients.csv"

    @property
    def linear(self) -> Path:
        """`linear.npz`: instead of `model.keras` in a linear model of voxels or vectors."""
        return self.path / "linear.npz"

    @property
    def network(self) -> Path:
        """The file that scores volumes: `linear.npz` where there is one, else `model.keras`."""
        return self.linear if self.linear.exists() else self.model

    @property
    def predictions(self) -> Path:
        """`predictions.csv`: subject, image, split, label and a probability per class, per volume."""
        return self.path / "predictions.csv"

    @property
    def metrics(self) -> Path:
        """`metrics.json`: metrics per split; written last, so that a run with this file is finished."""
        return self.path / "metrics.json"

    @property
    def learning(self) -> Path:
        """`learning.json`: scores of training and validation subjects, and whether the model learnt."""
        return self.path / "learning.json"

    @property
    def extensions(self) -> Path:
        """`extensions.json`: each time that the run was resumed for more epochs than it was begun with."""
        return self.path / "extensions.json"

    @property
    def previous_metrics(self) -> Path:
        """`metrics.before.json`: the metrics before the run was resumed for more epochs."""
        return self.path / "metrics.before.json"

    def evaluation(self, split: str) -> Path:
        """Return `evaluation-SPLIT.json`: metrics of one split, computed again by voxlift-evaluate."""
        return self.path / f"evaluation-{split}.json"

    @property
    def report(self) -> Path:
        """`report.html`: the page with results, figures and cases."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """`log.txt`: the log of the command."""
        return self.path / "log.txt"

    @property
    def tensorboard(self) -> Path:
        """`tensorboard/`: event files of TensorBoard."""
        return self.path / "tensorboard"

    @property
    def slice_model(self) -> RunFolder:
        """`slice2d/`: the run of the slice model, where one was trained first and then inflated."""
        return RunFolder(self.path / "slice2d")

    @property
    def is_finished(self) -> bool:
        """Whether the run has been scored."""
        return self.metrics.exists()


def create_run(run_dir: str | None, *, runs_folder: str, name: str) -> RunFolder:
    """Create a new run folder on disk.

    Args:
        run_dir: Folder that the user asks for; None creates `<runs_folder>/<time>-<name>`.
        runs_folder: Parent of unnamed runs.
        name: Describes the run in the name of an unnamed folder.

    Raises:
        SettingsError: The folder holds the files of another run, or anything else.
    """
    if run_dir is None:
        return _create_unnamed(Path(runs_folder), f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    refuse_used_folder(run_dir)
    folder = RunFolder(Path(run_dir).expanduser())
    folder.path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.path)
    return folder


def refuse_used_folder(run_dir: str | None) -> None:
    """Raise an error unless `run_dir` can receive a run: it is None, new, or empty but for a killed start.

    Raises:
        SettingsError: It holds files, is a file, or cannot be created.
    """
    if run_dir is None:
        return
    path = Path(run_dir).expanduser()
    if path.exists() and not (path.is_dir() and all(map(_is_of_start, path.iterdir()))):
        raise SettingsError(
            f"run_dir={run_dir}: expected a new or empty folder, but {describe_used_folder(path)}"
        )
    refuse_unwritable(path / "config.yaml", setting=f"run_dir={run_dir}")


def _is_of_start(path: Path) -> bool:
    """Return whether a training writes this file before `config.yaml`, from which it can be resumed."""
    run = RunFolder(path.parent)
    return is_leftover(path) or path in {run.log, run.preflight, run.untrained}


def open_finished_run(run: str, *, allow_table: bool = False) -> RunFolder:
    """Return the folder of a finished run of a network or a linear model.

    Args:
        run: Path of the folder.
        allow_table: Whether it may be a regression on columns of the table.

    Raises:
        SettingsError: It is not a folder, not a run, not finished, or holds no network.
    """
    folder = RunFolder(Path(run).expanduser())
    if not folder.path.is_dir():
        found = "it is a file" if folder.path.exists() else "it does not exist"
        raise SettingsError(f"run={run}: expected a run folder, but {found}. {suggest_runs(folder.path)}")
    missing = [path.name for path in (folder.config, folder.splits, folder.network) if not path.exists()]
    if missing and folder.coefficients.exists():
        if allow_table and folder.columns.exists() and folder.is_finished:
            return folder
        raise SettingsError(
            f"run={run}: expected the run of a network, but this is a regression on columns of the table; "
            "its results are in metrics.json, predictions.csv and coefficients.csv."
        )
    if missing:
        raise SettingsError(
            f"run={run}: expected the folder of a finished run, but {', '.join(missing)} is missing. "
            f"{suggest_runs(folder.path)}"
        )
    return folder


def _create_unnamed(parent: Path, stem: str) -> RunFolder:
    parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):  # two runs may start within one second
        path = parent / (stem if attempt == 0 else f"{stem}-{attempt + 1}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunFolder(path)
    raise SettingsError(f"{parent}: a thousand runs were started in this second; set run_dir.")


def load_network(path: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """Return a saved network that can score volumes on this device; it may contain layers of Voxlift.

    Args:
        path: A `.keras` file, or `linear.npz` of a linear model.

    Raises:
        SettingsError: The file is not a Keras model, or is damaged.
    """
    import_quietly()
    if path.suffix == ".npz":
        from voxlift.app.runs.linear import load_linear_network  # numpy: not for --help

        return load_linear_network(path)
    import voxlift.models.layers  # noqa: F401 - importing a layer registers it
    from voxlift.models.loading import read_network

    try:
        network = read_network(path)
    except ValueError as error:
        hint = " Modules are named by custom=[MODULE]." if "custom layers" in str(error) else ""
        raise SettingsError(f"Expected a Keras model that can be loaded. {error}{hint}") from error
    protect_scoring(network)
    return network


def save_network(network: Any, path: Path) -> None:  # noqa: ANN401 - Keras ships no types
    """Write a `.keras` file atomically.

    Raises:
        OSError: Writing failed, such as on a full disk; an existing file is unchanged.
    """
    remove_leftovers(path.parent)
    with atomic_write(path) as temporary:
        network.save(temporary)


def save_trained(network: Any, path: Path) -> None:  # noqa: ANN401 - as above
    """Write a trained network, or one that contains it, without optimiser and loss; as `save_network`."""
    import keras

    # The same layers and weights, but single tensors as input and output: lists of one warn when called.
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.inputs
    bare = keras.Model(inputs, network.outputs[0], name=network.name)
    # A slice model contains the compiled network, whose optimiser would be required whenever it is loaded.
    parts = [part for part in bare._flatten_layers() if getattr(part, "compiled", False)]  # noqa: SLF001 - Keras has no public walk into nested networks
    try:
        for part in parts:
            part.compiled = False
        save_network(bare, path)
    finally:
        for part in parts:
            part.compiled = True


def volume_shape(network: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - as above
    """Return depth, height, width and channels of the volumes that a network takes; None for any size."""
    return tuple(network.inputs[0].shape[1:])
