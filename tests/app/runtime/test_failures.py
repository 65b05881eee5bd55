"""Out-of-memory and disk-full errors are recognised in the words of every library, and kept apart."""

import errno
import os

import pytest

from voxlift.app.errors import UserError
from voxlift.app.runtime.failures import MemoryHint, is_disk_full, is_out_of_memory, translate_failures


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


MEMORY = (
    MemoryError(),
    ResourceExhaustedError("OOM when allocating tensor with shape[8,96]"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."),
    RuntimeError("Unable to allocate 3. GiB for an array"),
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 3. GiB",
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
)
DISK = (
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.npz"),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ResourceExhaustedError("a/events; No space left on device"),
)
OTHER = (ValueError("x"), OSError(errno.EIO, os.strerror(errno.EIO)), "ran out of patience")


def test_each_error_is_one_of_memory_disk_and_other():
    for errors, expected in ((MEMORY, (True, False)), (DISK, (False, True)), (OTHER, (False, False))):
        for error in errors:
            assert (is_out_of_memory(error), is_disk_full(error)) == expected, error


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def test_a_full_disk_names_the_file_and_how_to_resume():
    for number in FULL:
        with (
            pytest.raises(UserError) as caught,
            translate_failures(MemoryHint("", ""), "voxlift-train resume=r"),
        ):
            raise OSError(number, os.strerror(number), "r/model.keras")
        assert "r/model.keras" in str(caught.value)
        assert str(caught.value).endswith("resume=r")
