"""Why a measurement has no answer: out of memory, out of time, or for another reason."""

import pytest

from voxlift.app.runtime.exit_status import TIMED_OUT
from voxlift.app.studies.batch_size.memory import interpret_failure
from voxlift.app.studies.measurement_process import FailedMeasurement, MeasurementError

OUTPUTS = {
    "python": "MemoryError",
    "the C++ library": "terminate called after throwing an instance of 'std::bad_alloc'",
    "TensorFlow": "OP_REQUIRES failed at mkl_util.h:848 : RESOURCE_EXHAUSTED: OOM when allocating tensor",
    "its exception": "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error",
    "the system": "OSError: [Errno 12] Cannot allocate memory",
}


def failed(tmp_path, output, *, status=70, reason="ended by SIGABRT"):
    log = tmp_path / "log.txt"
    log.write_text(f"{output}\n")
    return FailedMeasurement(status, reason, log)


def test_an_out_of_memory_message_before_a_crash_means_that_the_batch_does_not_fit(tmp_path):
    for source, output in OUTPUTS.items():
        answer = interpret_failure(failed(tmp_path, output))
        assert answer is not None, source
        assert answer["fits"] is False, source


def test_a_process_that_the_kernel_killed_had_no_memory_left(tmp_path):
    assert failed(tmp_path, "", reason="ended by SIGKILL (out of memory?)").is_out_of_memory


@pytest.mark.parametrize(
    "output", ["ValueError: a wrong shape", "Segmentation fault", "ModuleNotFoundError: No module named 'x'"]
)
def test_any_other_failure_is_no_answer(output, tmp_path):
    assert interpret_failure(failed(tmp_path, output)) is None


def test_a_process_out_of_time_is_not_one_out_of_memory(tmp_path):
    late = failed(tmp_path, "OOM when allocating", status=TIMED_OUT, reason="no end within 3 s")
    assert not late.is_out_of_memory
    assert late.message == "no end within 3 s"


def test_a_crash_without_a_message_is_reported_with_its_last_output_and_log(tmp_path):
    error = MeasurementError("fit-8", failed(tmp_path, "building\n\n"))
    assert "SIGABRT" in error.reason
    assert error.reason.endswith("building")
    assert "fit-8" in str(error)
    assert str(tmp_path / "log.txt") in str(error)
