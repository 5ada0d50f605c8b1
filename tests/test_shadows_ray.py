"""Shadows on a cluster: joblib's Ray backend, on a real Ray on this machine."""

from __future__ import annotations

import pathlib
import warnings

import joblib
import numpy as np
import pytest

from diffence import shadows as module
from diffence.attacks import Target
from diffence.data import load
from diffence.shadows import ShadowRecipe, Shadows

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'diffence[cluster]')")


def test_cells_train_on_ray(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.util.joblib import register_ray

    digits = load("digits")
    images, labels = digits.images[:80], digits.labels[:80]
    recipe = ShadowRecipe("convnet", epochs=2, batch=20, options={"width": 4})

    def make(folder: str) -> Shadows:
        return Shadows(images, labels, recipe, folder=tmp_path / folder, seed=0, count=4, progress=False)

    target = Target(lambda asked: np.asarray(asked, float).reshape(len(asked), 64)[:, :10])
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it would leave a token in the home folder
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("trained in this process")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about what will change in Ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        try:
            register_ray()
            with joblib.parallel_config(backend="ray", n_jobs=2), monkeypatch.context() as here:
                here.setattr(module.classifiers, "train", refuse)
                found = make("ray").collect(target, images)
        finally:
            ray.shutdown()
    np.testing.assert_array_equal(found.shadow_signals, make("here").collect(target, images).shadow_signals)
