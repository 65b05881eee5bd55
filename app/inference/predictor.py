"""Scans in, rows out, batch by batch; a scan that cannot be used does not stop the others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import PredictSettings, SettingsError
from voxlift.app.files import read_json
from voxlift.app.inference.engine import Engine, choose_engine
from voxlift.app.inference.ensemble import (
    BatchScores,
    Ensemble,
    build_member_views,
    load_networks,
    score_batch,
)
from voxlift.app.inference.maps import MapOptions, count_passes, refuse_gradcam_of_linear, write_scan_map
from voxlift.app.inference.options import resolve_explain_method
from voxlift.app.inference.scans import PreparedScan, prepare_scan, take_batches
from voxlift.app.inference.test_time_augmentation import View
from voxlift.app.progress import phase
from voxlift.app.runs.folder import volume_shape
from voxlift.data_pipelines.audit.prepared import find_out_of_range
from voxlift.data_pipelines.parallel import map_in_order
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.scans import Scan
from voxlift.data_pipelines.tables.manifest import name_item

log = logging.getLogger("voxlift")

MAX_LOGGED = 10  # scans of one kind of problem that are printed; the table holds all

Row = dict[str, Any]
NumberedScan = tuple[int, Scan]  # from 1, which makes the names of map files unique
Notice = tuple[str, str]  # kind and sentence

SEEN = "seen in training"


@dataclass
class Predictor:
    """Everything that turns scans into rows.

    Attributes:
        ensemble: The runs.
        networks: Their networks, one per member.
        views: Views of test-time augmentation, the unchanged one first.
        batch_size: Scans scored at once.
        workers: Threads that read and prepare; 0 is one per CPU.
        maps: How explanation maps are made; None makes none.
        limits: Of prediction sets, by label; None: no sets.
        seen: Images that a run was trained on, see `scan_key`.
        engine: What computes the scores, and the maps by occlusion; see `choose_engine`.
        notices: What was noticed of scans, kind and sentence, where it is not to be logged; None: logged.
        engines: Of the members; empty before the first batch.
    """

    ensemble: Ensemble
    networks: Sequence[Any]
    views: Sequence[View] = (View(),)
    batch_size: int = 1
    workers: int = 0
    maps: MapOptions | None = None
    limits: Mapping[str, float] | None = None
    seen: frozenset[str] = frozenset()
    engine: str = "tensorflow"
    notices: list[Notice] | None = None
    engines: list[Engine] = field(default_factory=list)
    _logged: Counter[str] = field(default_factory=Counter)

    @cached_property
    def scorers(self) -> tuple[Any, ...]:
        """Faster networks with equal scores; explanations use the networks themselves."""
        from voxlift.models.batch_norm import fold_batch_norm

        return tuple(fold_batch_norm(network) for network in self.networks)

    @property
    def occluded(self) -> tuple[Any, ...] | None:
        """What scores covered volumes for maps; None: the networks themselves."""
        if all(one.name == "tensorflow" for one in self.engines):
            return None
        return tuple(one.scorer for one in self.engines)

    def choose_engines(self, voxels: NDArray[np.float32], cells: Sequence[Sequence[str]], scans: int) -> None:
        """Choose once what scores, by the first batch: volumes [B, D, H, W, C] and their columns.

        Args:
            voxels: Of the batch.
            cells: Of each volume the text of `Ensemble.joined_columns`.
            scans: How many will be scored.
        """
        if self.engines:
            return
        passes = len(self.views) + (0 if self.maps is None else count_passes(self.maps.method))
        for member, scorer in zip(self.ensemble.members, self.scorers, strict=True):
            columns = self.ensemble.encode(member, cells)
            self.engines.append(
                choose_engine(
                    self.engine,
                    scorer,
                    member.run.network,
                    (voxels,) if columns is None else (voxels, columns),
                    volumes=scans * passes,
                    training_range=member.training_range,
                )
            )

    @property
    def columns(self) -> list[str]:
        """The keys of every row, in order."""
        ensemble = self.ensemble
        return [
            "subject",
            "image",
            *ensemble.task.scan_columns(ensemble.classes),
            *(f"calibrated_{name}" for name in ensemble.classes if ensemble.calibrations),
            *(ensemble.task.set_columns(ensemble.classes) if self.limits is not None else []),
            *(["spread"] if len(ensemble.members) > 1 else []),
            *(["map", "picture", "agreement"] if self.maps else []),
            "warning",
            "reason",
        ]

    def predict(self, scans: Iterable[NumberedScan]) -> Iterator[list[Row]]:
        """Yield the rows of each batch, in the order of the scans."""
        shape = volume_shape(self.networks[0])
        prepare = partial(_prepare_numbered, settings=self.ensemble.preprocess, shape=shape)
        numbered = list(scans)
        prepared = map_in_order(prepare, numbered, workers=self.workers, ahead=2 * self.batch_size)
        for batch in take_batches(prepared, self.batch_size):
            yield self._rows_of_batch(batch, scans=len(numbered))

    def _rows_of_batch(self, batch: Sequence[tuple[int, PreparedScan]], *, scans: int) -> list[Row]:
        usable = [scan.voxels for _, scan in batch if scan.voxels is not None]
        cells = [scan.scan.cells for _, scan in batch if scan.voxels is not None]
        scores = None
        if usable:
            voxels = np.stack(usable)
            self.choose_engines(voxels, cells, scans)
            scorers = [one.scorer for one in self.engines]
            scores = score_batch(self.ensemble, scorers, voxels, self.views, cells=cells)
        rows, position = [], 0
        for number, scan in batch:
            if scores is None or scan.voxels is None:
                rows.append(self._failed_row(scan, scan.reason))
                continue
            if np.isfinite(scores.predictions[position]).all():
                rows.append(self._scored_row(number, scan, scores, position))
            else:
                reason = f"{scan.scan.images[0]}: the network returned scores that are not finite"
                rows.append(self._failed_row(scan, reason))
            position += 1
        return rows

    def _failed_row(self, scan: PreparedScan, reason: str) -> Row:
        self.notice("Cannot be scored", reason)
        return self._empty_row(scan.scan) | {"reason": reason}

    def _scored_row(self, number: int, scan: PreparedScan, scores: BatchScores, position: int) -> Row:
        task, names, row = self.ensemble.task, self.ensemble.classes, self._empty_row(scan.scan)
        prediction, decision = scores.predictions[position], scores.decisions[position]
        row |= task.scan_cells(prediction, decision, names)
        if scores.calibrated is not None:
            calibrated = zip(names, scores.calibrated[position], strict=True)
            row |= {f"calibrated_{name}": float(p) for name, p in calibrated}
        if self.limits is not None:
            row |= task.set_cells(prediction, self.limits, names)
        if "spread" in row:
            row["spread"] = float(scores.spread[position])
        warnings = self._find_out_of_range(scan)
        if warnings:
            self.notice("Outside the training range", f"{scan.scan.subject}: {'; '.join(warnings)}")
        if self.maps is not None:
            output = task.map_output(prediction, decision, self.maps.label)
            columns, warning = write_scan_map(
                scan,
                options=self.maps,
                ensemble=self.ensemble,
                networks=self.networks,
                occluded=self.occluded,
                output=output,
                titles=task.map_title(output, prediction, names),
                number=number,
            )
            row |= columns
            warnings += [warning] if warning else []
        if row["image"] in self.seen:
            warnings = [SEEN, *warnings]
        return row | {"warning": "; ".join(warnings)}

    def _empty_row(self, scan: Scan) -> Row:
        subject, image = scan_key(scan)
        return dict.fromkeys(self.columns, "") | {"subject": subject, "image": image}

    def _find_out_of_range(self, scan: PreparedScan) -> list[str]:
        """Return what lies outside the training range of any member, each phrase once."""
        phrases: dict[str, None] = {}
        for member in self.ensemble.members:
            if member.training_range is not None and scan.summary is not None:
                phrases |= dict.fromkeys(find_out_of_range(scan.summary, member.training_range))
        return [*phrases, *self.ensemble.find_unusual_cells(scan.scan.cells)]

    def describe_lost(self, scan: Scan, problem: str) -> Row:
        """Return the row of a scan that ended every process which scored it."""
        return self._failed_row(PreparedScan(scan), f"{scan.images[0]}: {problem}")

    def notice(self, kind: str, text: str) -> None:
        """Log a sentence about a scan, the first few of a kind, or keep it."""
        if self.notices is not None:
            self.notices.append((kind, text))
            return
        self._logged[kind] += 1
        if self._logged[kind] <= MAX_LOGGED:
            log.info("%s: %s", kind, text)
        elif self._logged[kind] == MAX_LOGGED + 1:
            log.info("%s: further scans are listed in the table only", kind)


def build_predictor(settings: PredictSettings, ensemble: Ensemble) -> Predictor:
    """Return the predictor that the settings ask for, with loaded networks.

    Raises:
        SettingsError: The maps need a class or a layer that does not exist.
    """
    views = build_member_views(ensemble, settings.tta)
    maps = _build_map_options(settings, ensemble)
    if maps is not None:
        refuse_gradcam_of_linear(ensemble, maps.method)
    with phase("Loading the model"):
        networks = load_networks(ensemble)
    if maps is not None:
        _refuse_unknown_layer(maps, networks)
        maps.folder.mkdir(parents=True, exist_ok=True)
    return Predictor(
        ensemble=ensemble,
        networks=networks,
        views=views,
        batch_size=settings.batch_size or ensemble.members[0].settings.trainer.batch_size,
        workers=settings.workers,
        maps=maps,
        limits=read_set_limits(ensemble, settings.tta),
        engine=settings.engine,
    )


def read_set_limits(ensemble: Ensemble, tta: str) -> dict[str, float] | None:
    """Return the limits of a run's prediction sets; None without any, or where they would not hold.

    The promised coverage is that of one model without test-time augmentation.
    """
    saved = read_json(ensemble.members[0].run.metrics).get("prediction_sets")
    if saved is None:
        return None
    if len(ensemble.members) > 1 or tta != "none":
        log.info("No prediction sets: they were calibrated for one run without test-time augmentation.")
        return None
    from voxlift.app.evaluation.conformal import read_limits

    return read_limits(saved)


def scan_key(scan: Scan) -> tuple[str, str]:
    """Return subject and images of a scan, as its row holds them."""
    return scan.subject, name_item(scan.images, scan.region)


def _build_map_options(settings: PredictSettings, ensemble: Ensemble) -> MapOptions | None:
    method = resolve_explain_method(settings)
    if method is None:
        return None
    named, classes = settings.explain_class, ensemble.classes
    if named is not None and named not in classes:
        raise SettingsError(f"explain_class: expected one of {', '.join(classes)}; received {named}.")
    output = Path(settings.output).expanduser()
    label = None if named is None else classes.index(named)
    return MapOptions(output.with_name(f"{output.stem}_maps"), method, settings.explain_layer, label)


def _refuse_unknown_layer(maps: MapOptions, networks: Sequence[Any]) -> None:
    from voxlift.models.explain import find_layer

    if maps.method == "occlusion":
        return
    for network in networks:
        try:
            find_layer(network, maps.layer)
        except ValueError as error:
            raise SettingsError(f"explain_layer: {error}") from error


def _prepare_numbered(
    item: NumberedScan, *, settings: Preprocess, shape: Sequence[int | None]
) -> tuple[int, PreparedScan]:
    number, scan = item
    return number, prepare_scan(scan, settings, shape=shape)
