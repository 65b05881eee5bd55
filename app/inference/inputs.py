"""From the settings of a prediction to what makes it: the scans, the networks, the views, the maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlift.app.config import PredictSettings, SettingsError
from voxlift.app.inference.ensemble import Ensemble, image_columns, load_networks, member_views
from voxlift.app.inference.loop import Predictor
from voxlift.app.inference.maps import Explaining
from voxlift.app.inference.methods import explain_method
from voxlift.app.progress import console, say
from voxlift.data_pipelines.scans import Scan, find_scans
from voxlift.data_pipelines.tables.reader import read_table


def scans_of(settings: PredictSettings, ensemble: Ensemble) -> tuple[Scan, ...]:
    """The scans of `input`, read as the runs' own data were where the settings do not say otherwise.

    Raises:
        ManifestError: there are none, or the table cannot be read.
    """
    own = ensemble.members[0].settings
    source = Path(str(settings.input)).expanduser()
    columns = tuple(settings.image_columns) or image_columns(own)
    subject = settings.subject_column
    if subject is None and source.suffix.lower() in {".csv", ".tsv", ".txt"} and source.is_file():
        usual = own.data.subject_column if own.data.name == "manifest" else "participant_id"
        # The run's own subject column is welcome, not demanded: new tables often know only files.
        subject = usual if usual in read_table(source).columns else None
    scans = find_scans(source, image_columns=columns, subject_column=subject, root=settings.root)
    _say_absent(scans, source)
    return scans


def _say_absent(scans: Sequence[Scan], source: Path) -> None:
    """Name the setting that puts a table's paths right, where it lists files that are not there."""
    lost = [scan for scan in scans if not all(path.exists() for path in scan.images)]
    if lost:
        say(
            f"{len(lost)} of the {len(scans)} scans of {source} are not there: relative paths start from "
            f"root=FOLDER, by default the table's own folder."
        )


def build_predictor(settings: PredictSettings, ensemble: Ensemble) -> Predictor:
    """What scores the scans: the runs' networks, loaded, with the views and maps that are asked for.

    Raises:
        SettingsError: the maps name a class or a layer that is not there.
    """
    views = member_views(ensemble, settings.tta)
    explaining = _explaining(settings, ensemble)
    with console.status("Loading the model"):
        networks = load_networks(ensemble)
    if explaining is not None:
        _refuse_unknown_layer(explaining, networks)
        explaining.folder.mkdir(parents=True, exist_ok=True)
    return Predictor(
        ensemble=ensemble,
        networks=networks,
        views=views,
        batch_size=settings.batch_size or ensemble.members[0].settings.trainer.batch_size,
        workers=settings.workers,
        explaining=explaining,
    )


def _explaining(settings: PredictSettings, ensemble: Ensemble) -> Explaining | None:
    method = explain_method(settings)
    if method is None:
        return None
    named, classes = settings.explain_class, ensemble.classes
    if named is not None and named not in classes:
        raise SettingsError(f"explain_class: expected one of {', '.join(classes)}; received {named}.")
    output = Path(settings.output).expanduser()
    label = None if named is None else classes.index(named)
    return Explaining(output.with_name(f"{output.stem}_maps"), method, settings.explain_layer, label)


def _refuse_unknown_layer(explaining: Explaining, networks: Sequence[Any]) -> None:
    from voxlift.models.explain import find_layer

    if explaining.method == "occlusion":
        return
    for network in networks:
        try:
            find_layer(network, explaining.layer)
        except ValueError as error:
            raise SettingsError(f"explain_layer: {error}") from error
