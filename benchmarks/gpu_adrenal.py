"""AdrenalMNIST3D trained by Keras from its npz file, in three precisions: the AUCs should agree within 0.02.

    KERAS_BACKEND=jax python benchmarks/gpu_adrenal.py adrenalmnist3d.npz
    KERAS_BACKEND=jax python benchmarks/gpu_adrenal.py adrenalmnist3d.npz --epochs 1 --volumes 64     a trial

Needed are Keras, its backend and numpy; of this project the lifted CNN. It trains on the official split and
keeps the weights with the lowest validation loss. The precisions are trained one after another.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]

import numpy as np  # noqa: E402 - after the paths

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
FILTERS = (16, 32, 64, 128)  # those of conf/experiment/adrenal.yaml
TOLERANCE = 0.02


def main() -> int:
    """Train in each precision, print a CSV line after each, and return 1 where an AUC differs."""
    options = parse_arguments()
    parts = read_parts(options.npz, options.volumes)
    print("csv,precision,test_auc,val_loss,seconds,seconds_per_epoch", flush=True)
    scores = {}
    for precision in options.precision:
        scores[precision], line = train_once(precision, parts, options)
        print(f"csv,{precision},{line}", flush=True)
    differences = [abs(score - scores[options.precision[0]]) for score in scores.values()]
    print(f"Largest difference from {options.precision[0]}: {max(differences):.3f} (allowed {TOLERANCE})")
    return int(max(differences) > TOLERANCE)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("npz", type=Path)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--volumes", type=int, help="of each part; default: all")
    return parser.parse_args()


def read_parts(npz: Path, volumes: int | None) -> dict[str, tuple[Any, Any]]:
    """Return voxels [N, D, H, W, 1] in [0, 1] and labels [N] of train, val and test."""
    with np.load(npz) as file:
        return {
            part: (
                file[f"{part}_images"][:volumes, ..., None].astype("float32") / 255,
                file[f"{part}_labels"][:volumes].ravel().astype("int32"),
            )
            for part in ("train", "val", "test")
        }


def train_once(
    precision: str, parts: dict[str, tuple[Any, Any]], options: argparse.Namespace
) -> tuple[float, str]:
    """Return the test AUC in one precision, and the line of figures.

    Args:
        precision: A dtype policy of Keras.
        parts: Of the data set.
        options: Of the command line.
    """
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = build_network(parts["train"][0].shape[1:4])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, jit_compile=True)
    best = keras.callbacks.EarlyStopping(patience=options.epochs, restore_best_weights=True)
    began = time.perf_counter()
    history = model.fit(
        *parts["train"],
        batch_size=options.batch,
        epochs=options.epochs,
        validation_data=parts["val"],
        callbacks=[best],
        verbose=0,
    ).history
    seconds = time.perf_counter() - began
    logits = np.asarray(model.predict(parts["test"][0], batch_size=options.batch, verbose=0), np.float64)
    auc = area_under_curve(parts["test"][1], logits[:, 1] - logits[:, 0])
    figures = (
        f"{auc:.4f}",
        f"{min(history['val_loss']):.4f}",
        f"{seconds:.1f}",
        f"{seconds / options.epochs:.2f}",
    )
    return auc, ",".join(figures)


def build_network(shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the lifted CNN [B, D, H, W, 1] -> logits of two classes."""
    from voxlift.models.baselines import build_baseline
    from voxlift.models.lifting import to_3d

    flat = build_baseline("cnn", input_shape=(*shape[1:], 1), classes=2, filters=FILTERS)
    return to_3d(flat, depth=shape[0], depth_policy="isotropic")


def area_under_curve(labels: Any, scores: Any) -> float:  # noqa: ANN401 - arrays
    """Return the probability that a positive one scores higher than a negative one; ties count half.

    >>> area_under_curve(np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9]))
    0.75
    """
    differences = scores[labels == 1][:, None] - scores[labels == 0][None]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


if __name__ == "__main__":
    sys.exit(main())
