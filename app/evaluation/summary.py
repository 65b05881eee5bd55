"""Each model of a comparison in one block, as a page and `comparison.json` hold it."""

from collections.abc import Mapping, Sequence

from voxlift.app.evaluation.bootstrap import model_intervals, point_metrics
from voxlift.app.evaluation.intervals import RESAMPLES, defined
from voxlift.app.evaluation.scores import Scores


def summarise_models(
    models: Mapping[str, Sequence[Scores]],
    *,
    trainings: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, object]]:
    """Values over folds and seeds, with their intervals."""
    bounds = model_intervals(models, trainings=trainings, resamples=resamples, seed=seed)
    blocks: dict[str, dict[str, object]] = {}
    for name, cells in models.items():
        subjects = {subject for cell in cells for subject in cell.subjects}
        volumes = {key for cell in cells for key in cell.keys}
        blocks[name] = {key: defined(value) for key, value in point_metrics(cells).items()}
        blocks[name] |= {"n": len(volumes), "subjects": len(subjects)}
        blocks[name]["intervals"] = {
            key: [defined(low), defined(high)] for key, (low, high) in bounds[name].items()
        }
    return blocks
