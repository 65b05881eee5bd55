"""The documented import paths below `voxlift.data_pipelines` lead to the objects that the code uses."""

import importlib
import subprocess
import sys

import pytest

NAMES = {
    "manifest.TableOptions": "tables.rows.TableOptions",
    "manifest.load_manifest": "tables.manifest.load_manifest",
    "tables.ManifestError": "errors.ManifestError",
    "labels.index_labels": "tables.reader.index_labels",
    "scans.find_scans": "scans.find_scans",
    "readers.load_volume": "readers.load.load_volume",
    "readers.read_stored": "readers.load.read_stored",
    "volume.VolumeError": "volume.VolumeError",
    "volume.real_values": "volume.real_values",
    "cache.fill_cache": "cache.fill.fill_cache",
    "preprocess_settings.Preprocess": "preprocess.settings.Preprocess",
    "geometry.spacing_of": "geometry.spacing_of",
}


def find(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"voxlift.data_pipelines.{module}"), name)


@pytest.mark.parametrize("path", NAMES)
def test_a_documented_path_leads_to_the_object_itself(path):
    assert find(path) is find(NAMES[path])


def test_tables_import_neither_readers_nor_tensorflow():
    code = """
import sys
import voxlift.data_pipelines.labels, voxlift.data_pipelines.manifest, voxlift.data_pipelines.tables
print({name.partition(".")[0] for name in sys.modules} & {"nibabel", "SimpleITK", "tensorflow", "keras"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "set()"
