"""MLflow: a local store holds the settings and the curves; a resumed run continues the same one."""

import importlib.util

import pytest

from voxlift.app.config import LoggerSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.training.callbacks.recording import WriteMlflow

HAS_MLFLOW = importlib.util.find_spec("mlflow") is not None


@pytest.mark.skipif(not HAS_MLFLOW, reason="the extra voxlift[mlflow] is not installed")
@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_a_local_store_holds_settings_and_curves(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = LoggerSettings(mlflow=True, mlflow_uri=f"file:{tmp_path}/store")
    first = WriteMlflow(logger, name="run", params={"trainer.epochs": 2})
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 0.5, "val_auc": float("nan")})
    second = WriteMlflow(logger, name="run", params={})
    second.set_state(first.get_state())
    second.on_train_begin()
    second.on_epoch_end(1, {"loss": 0.25})
    second.finish()
    client = mlflow.MlflowClient(tracking_uri=logger.mlflow_uri)
    run = client.get_run(first.run_id)
    assert run.data.params == {"trainer.epochs": "2"}
    assert [point.value for point in client.get_metric_history(first.run_id, "loss")] == [0.5, 0.25]
    assert run.info.status == "FINISHED"
    assert "val_auc" not in run.data.metrics


@pytest.mark.skipif(HAS_MLFLOW, reason="MLflow is installed")
def test_the_command_that_installs_it_is_named_where_it_is_missing():
    settings = TrainSettings(logger=LoggerSettings(mlflow=True))
    with pytest.raises(SettingsError, match=r"pip install 'voxlift\[mlflow\]'"):
        check_settings(settings)
