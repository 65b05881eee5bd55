"""What a run's page reads from the run's folder."""

import pytest

from voxlift.app.files import write_rows
from voxlift.app.report.run_page import read_scores
from voxlift.app.runs.folder import RunFolder


def rows_of(probabilities):
    heads = {"subject": "a", "image": "a.nii", "split": "test", "label": "sick"}
    return [{**heads, "subject": f"s{i}", "p_well": 1 - p, "p_sick": p} for i, p in enumerate(probabilities)]


@pytest.mark.parametrize(("threshold", "expected"), [(0.3, [0, 1, 1]), (0.7, [0, 0, 1]), (None, [0, 0, 1])])
def test_a_page_decides_where_validation_put_the_threshold(threshold, expected, tmp_path):
    run = RunFolder(tmp_path)
    write_rows(run.predictions, rows_of([0.2, 0.4, 0.9]))
    scores = read_scores(run, ("well", "sick"), threshold=threshold)
    assert scores["test"].decisions.tolist() == expected
