"""A volume in a notebook: planes always, the interactive viewer where it is installed."""

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
    """A stand-in for ipyniivue, which keeps what it is given."""

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
def test_the_viewer_gets_the_voxels_where_they_lie(voxels):
    shown = show_volume(voxels, heat=voxels, spacing=(3.0, 1.0, 0.5)).widget().volumes
    assert [one["name"] for one in shown] == ["volume.nii", "map.nii"]
    image = nib.Nifti1Image.from_bytes(shown[0]["data"])
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), voxels.transpose(2, 1, 0))
    np.testing.assert_allclose(np.diag(image.affine), [0.5, 1.0, 3.0, 1.0])


@pytest.mark.usefixtures("without_viewer")
def test_a_file_is_turned_to_the_patient_and_its_map_with_it(voxels, tmp_path):
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])  # stored as LAS
    heat = np.zeros((11, 7, 5), "float32")
    heat[2, 3, 4] = 1
    paths = [
        save_volume(Volume(array, affine, tmp_path), tmp_path / name)
        for name, array in (("scan.nii.gz", voxels.transpose(2, 1, 0)), ("map.nii.gz", heat))
    ]
    view = show_volume(paths[0], heat=paths[1])
    assert view.title == "scan.nii.gz"
    assert view.heat.voxels[8, 3, 4] == 1  # left and right are turned
    assert (picture_of(view._repr_mimebundle_()).std(axis=-1) > 0.1).any()  # the map is coloured


def test_a_map_on_another_grid_and_another_rank_are_refused(voxels):
    with pytest.raises(VolumeError, match="expected a map on the grid"):
        show_volume(voxels, heat=voxels[:-1])
    with pytest.raises(VolumeError, match=r"expected an array \[depth, height, width\]"):
        show_volume(voxels[..., None])


def test_the_real_viewer_takes_what_it_is_given(voxels):
    pytest.importorskip("ipyniivue", reason="the extra voxlift[viewer] is not installed")
    view = show_volume(voxels, heat=voxels)
    widget = view.widget()
    assert [volume.name for volume in widget.volumes] == ["volume.nii", "map.nii"]
    assert (
        widget.opts.multiplanar_show_render.name == "ALWAYS"
    )  # a cell is wide: left to itself it turns nothing
    assert LIVE in view._repr_mimebundle_()
