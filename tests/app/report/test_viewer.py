"""A volume in a notebook: always as planes, and interactive where the viewer is installed."""

import base64
import importlib.machinery
import io
import sys
import types

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from voxlift.app.report import viewer as viewing
from voxlift.app.report.viewer import show_volume
from voxlift.data_pipelines.volume import Volume, VolumeError
from voxlift.data_pipelines.writers import save_volume

LIVE = "application/vnd.jupyter.widget-view+json"
SHAPE = (5, 7, 11)  # [D, H, W]


@pytest.fixture
def voxels():
    return np.random.default_rng(0).random(SHAPE).astype("float32")


@pytest.fixture
def without_viewer(monkeypatch):
    monkeypatch.setattr(viewing, "VIEWER", "no_such_viewer")


@pytest.fixture
def viewer(monkeypatch):
    """A fake ipyniivue, which stores what it receives."""

    class NiiVue:
        def __init__(self, **options):
            self.options, self.volumes = options, []

        def load_volumes(self, volumes):
            self.volumes = volumes

        def _repr_mimebundle_(self, **_):
            return {LIVE: {"model_id": "1"}, "text/plain": "a widget"}, {}

    module = types.ModuleType("ipyniivue")
    module.NiiVue = NiiVue
    module.ShowRender = types.SimpleNamespace(ALWAYS=1)
    module.__spec__ = importlib.machinery.ModuleSpec("ipyniivue", None)
    monkeypatch.setitem(sys.modules, "ipyniivue", module)


def picture_of(bundle):
    return imread(io.BytesIO(base64.b64decode(bundle["image/png"])))[..., :3]


@pytest.mark.usefixtures("without_viewer")
def test_without_the_viewer_a_cell_shows_three_planes(voxels):
    view = show_volume(voxels, spacing=(3.0, 1.0, 0.5), title="a scan")
    bundle = view._repr_mimebundle_(include=None, exclude=None)
    assert view.widget() is None
    assert set(bundle) == {"text/plain", "image/png"}
    assert picture_of(bundle).std() > 0.05
    assert bundle["text/plain"] == "a scan: 5 x 7 x 11 voxels (depth, height, width)"


@pytest.mark.usefixtures("viewer")
def test_with_the_viewer_a_cell_holds_it_and_the_planes(voxels):
    heat = np.where(voxels > 0.9, voxels, 0)
    bundle = show_volume(voxels, heat=heat)._repr_mimebundle_()
    assert bundle[LIVE] == {"model_id": "1"}
    assert bundle["text/plain"].startswith("volume: 5 x 7 x 11")
    assert picture_of(bundle).ndim == 3


@pytest.mark.usefixtures("viewer")
def test_the_viewer_receives_the_voxels_and_the_affine(voxels):
    shown = show_volume(voxels, heat=voxels, spacing=(3.0, 1.0, 0.5)).widget().volumes
    assert [one["name"] for one in shown] == ["volume.nii", "map.nii"]
    image = nib.Nifti1Image.from_bytes(shown[0]["data"])
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), voxels.transpose(2, 1, 0))
    np.testing.assert_allclose(np.diag(image.affine), [0.5, 1.0, 3.0, 1.0])


@pytest.mark.usefixtures("without_viewer")
def test_a_file_and_its_map_are_reoriented_to_ras(voxels, tmp_path):
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])  # stored as LAS
    heat = np.zeros((11, 7, 5), "float32")
    heat[2, 3, 4] = 1
    paths = [
        save_volume(Volume(array, affine, tmp_path), tmp_path / name)
        for name, array in (("scan.nii.gz", voxels.transpose(2, 1, 0)), ("map.nii.gz", heat))
    ]
    view = show_volume(paths[0], heat=paths[1])
    assert view.title == "scan.nii.gz"
    assert view.heat.voxels[8, 3, 4] == 1  # left and right are flipped
    assert (picture_of(view._repr_mimebundle_()).std(axis=-1) > 0.1).any()  # the map is coloured


def test_a_map_on_another_grid_and_another_rank_are_refused(voxels):
    with pytest.raises(VolumeError, match=r"\(11, 7, 5\).*\(11, 7, 4\)"):
        show_volume(voxels, heat=voxels[:-1])
    with pytest.raises(VolumeError, match=r"\(5, 7, 11, 1\)"):
        show_volume(voxels[..., None])


def test_the_installed_viewer_accepts_the_volumes(voxels):
    pytest.importorskip("ipyniivue", reason="the extra voxlift[viewer] is not installed")
    view = show_volume(voxels, heat=voxels)
    widget = view.widget()
    assert [volume.name for volume in widget.volumes] == ["volume.nii", "map.nii"]
    assert widget.opts.multiplanar_show_render.name == "ALWAYS"  # a wide cell shows no rendering by default
    assert LIVE in view._repr_mimebundle_()
