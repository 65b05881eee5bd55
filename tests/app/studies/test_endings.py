"""Why a measurement has no answer: for want of memory, out of time, or for another reason."""

import pytest

from voxlift.app.runtime.exit_status import TIMED_OUT
from voxlift.app.studies.batch_size.memory import judge_fit
from voxlift.app.studies.measuring import Ending, MeasurementError

WORDS = {
    "python": "MemoryError",
    "the C++ library": "terminate called after throwing an instance of 'std::bad_alloc'",
    "TensorFlow": "OP_REQUIRES failed at mkl_util.h:848 : RESOURCE_EXHAUSTED: OOM when allocating tensor",
    "its exception": "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error",
    "the system": "OSError: [Errno 12] Cannot allocate memory",
}


def ending(tmp_path, said, *, status=70, reason="ended by SIGABRT"):
    log = tmp_path / "log.txt"
    log.write_text(f"{said}\n")
    return Ending(status, reason, log)


@pytest.mark.parametrize("who", WORDS)
def test_words_about_memory_before_a_crash_mean_that_the_batch_does_not_fit(who, tmp_path):
    answer = judge_fit(ending(tmp_path, WORDS[who]))
    assert answer is not None
    assert answer["fits"] is False


def test_a_process_that_the_kernel_killed_had_no_memory_left(tmp_path):
    assert ending(tmp_path, "", reason="ended by SIGKILL (out of memory?)").is_memory


@pytest.mark.parametrize(
    "said", ["ValueError: a wrong shape", "Segmentation fault", "ModuleNotFoundError: No module named 'x'"]
)
def test_any_other_failure_says_nothing_of_memory(said, tmp_path):
    assert judge_fit(ending(tmp_path, said)) is None


def test_a_process_out_of_time_is_not_one_out_of_memory(tmp_path):
    late = ending(tmp_path, "OOM when allocating", status=TIMED_OUT, reason="no end within 3 s")
    assert not late.is_memory
    assert late.sentence == "no end within 3 s"


def test_a_crash_without_words_is_told_with_what_was_said_before(tmp_path):
    error = MeasurementError("fit-8", ending(tmp_path, "building\n\n"))
    assert error.reason == "ended by SIGABRT, after saying: building"
    assert "log.txt has it all" in str(error)
