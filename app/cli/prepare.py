"""`voxlift-prepare`: preprocess all volumes of a data set ahead, also on a cluster; a training finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import PrepareSettings, find_prepare_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import find_cluster_problems, format_job_script
from voxlift.app.runtime.exit_status import DONE

if TYPE_CHECKING:
    from voxlift.data_pipelines.cache.fill import CachedVolumes


def main() -> None:
    """Run the console script."""
    run_command("prepare", read=read_settings, job=prepare, is_supervised=True)


def read_settings(cfg: DictConfig) -> PrepareSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, PrepareSettings)
    refuse_problems([*find_prepare_problems(settings), *find_cluster_problems(settings.cluster)])
    return settings


def prepare(settings: PrepareSettings) -> int:
    """Prepare every volume that is not in the cache yet.

    Returns:
        The exit status.

    Raises:
        ManifestError, VolumeError: The table cannot be used, files cannot be used and `data.on_bad_file` is
            `stop`, or no file can be used. What could be prepared is kept.
    """
    if settings.cluster.dry_run:
        print_line(format_job_script(settings.cluster))
        return DONE
    from voxlift.app.data.cohort import prepare_records
    from voxlift.app.data.sources import (
        build_preprocess,
        load_subjects,
        resolve_preparation,  # these import numpy: not for --help
    )
    from voxlift.app.runtime.logs import logging_to_file
    from voxlift.app.runtime.shards import open_mapper
    from voxlift.app.tasks.base import task_of

    with logging_to_file():
        settings = resolve_preparation(settings)
        preprocess = build_preprocess(settings.preprocess, settings.data)
        records = load_subjects(settings.data, task_of(settings)).records
        with open_mapper(settings.cluster, unit="volumes", workers=settings.cache.workers) as mapper:
            cached = prepare_records(records, preprocess, settings.cache, mapper)
    _print_summary(cached, settings)
    return DONE


def _print_summary(cached: CachedVolumes, settings: PrepareSettings) -> None:
    """Print how many volumes are prepared.

    Raises:
        VolumeError: Files cannot be used and `data.on_bad_file` is `stop`, or no file can be used.
    """
    from voxlift.data_pipelines.cache.fill import explain_problems
    from voxlift.data_pipelines.volume import VolumeError

    count = len(cached.files) - len(cached.problems)
    shape = "x".join(map(str, cached.shape))
    print_line(
        f"{count} of {len(cached.files)} volumes are prepared: {shape} (depth, height, width, channels)"
    )
    if cached.problems:
        explained = explain_problems(cached.problems, is_any_left=count > 0)
        if settings.data.on_bad_file == "stop" or not count:
            raise VolumeError(explained)
        print_line(f"Left out, as a training will: {explained}")
    print_line("A training with the same data.* and preprocess.* reads them.")
    print_line(f"Results in {settings.cache.folder}")


if __name__ == "__main__":
    # Workers of a cluster import this module under its own name, which must not be __main__.
    from voxlift.app.cli.prepare import main as importable_main

    importable_main()
