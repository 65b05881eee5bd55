"""What a run's folder says from its start: what is trained, on what machine, on whom."""

from __future__ import annotations

from voxlift.app.files import write_json
from voxlift.app.process.environment import describe_environment
from voxlift.app.process.precision import Precision
from voxlift.app.runs.cohort import write_cohort
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.ranges import write_training_range
from voxlift.app.settings import TrainSettings
from voxlift.app.subjects.cohort import Cohort
from voxlift.app.subjects.glance import warn_of_images


def describe_run(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write the settings, the environment, the range of the training voxels and the splits; warn of images.

    The splits come last: they tell a resumed training that the rest is there.
    """
    save_settings(settings, run)
    write_json(run.environment, describe_environment(precision))
    warn_of_images(cohort, write_training_range(cohort, run))
    write_cohort(cohort, run)
