"""The smallest training that still does everything, for tests that need a real one."""

from commands import compose_command
from voxlift.app.cli.train import read_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.train import train

# Of a repeated key Hydra takes the last override: a test that needs another value appends it.
TINY = (
    "data.subjects=16",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "trainer.epochs=2",
    "trainer.batch_size=4",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
)


def places_in(folder, name=None):
    """Overrides that keep data and cache in a folder, and the run there under a name."""
    shared = [f"data.folder={folder}/data", f"cache.folder={folder}/cache"]
    return shared if name is None else [*shared, f"run_dir={folder / name}"]


def train_tiny(folder, name, *overrides):
    """A finished run, trained in this process on the phantom, in the folder under a name."""
    cfg = compose_command("train", *TINY, *places_in(folder, name), *overrides)
    assert train(read_settings(cfg)) == 0
    return RunFolder(folder / name)
