"""The manager of shadow models: what it trains, what it keeps, what it must not use again, and how it asks."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from test_fence import make_diffusion
from torch import nn

from diffence import Diffence, classifiers, metrics
from diffence import shadows as module
from diffence.attacks import RMIA, LiRA, Target, assign
from diffence.data import load
from diffence.shadows import Query, ShadowRecipe, Shadows, shifted

DIGITS = load("digits")
IMAGES, LABELS = DIGITS.images[:80], DIGITS.labels[:80]
# torch's matrix products (on an AVX-512 Xeon) depend on the company in a batch, and on where its memory lies.
ROUNDING = 1e-6
RECIPE = ShadowRecipe("convnet", epochs=2, batch=20, options={"width": 4})


def make(folder: pathlib.Path, **changes: Any) -> Shadows:
    arguments = {"images": IMAGES, "labels": LABELS, "recipe": RECIPE, "count": 4, "seed": 0, "progress": False}
    return Shadows(folder=folder, **(arguments | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the four shadows of `make`; tests that change it make a copy."""
    folder = tmp_path_factory.mktemp("shadows")
    make(folder).train()
    return folder


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the training sets of whatever is trained from now on, in this process."""
    seen: list[int] = []
    train = classifiers.train

    def spy(network: Any, images: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(images))
        return train(network, images, *arguments, **options)

    monkeypatch.setattr(module.classifiers, "train", spy)
    return seen


def copied(folder: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))


def target(images: Any) -> np.ndarray:
    """Some deterministic model of ten classes."""
    weights = np.random.default_rng(5).normal(size=(64, 10))
    return np.asarray(images, float).reshape(len(images), 64) @ weights / 100


# ---- what is collected ---------------------------------------------------------------------------------------------


def test_answers_are_those_of_networks_trained_on_their_halves(trained: pathlib.Path) -> None:
    """Against a training and a prediction written out here."""
    shadows = make(trained)
    np.testing.assert_array_equal(shadows.inside, assign(4, 80, 0))
    seen = shadows.collect(Target(target), IMAGES, LABELS)
    assert seen.shadow_logits is not None
    for shadow in range(4):
        network, config = classifiers.load(next(trained.glob(f"shadow-{shadow:03d}-*.safetensors")))
        own = classifiers.build("convnet", classes=10, channels=1, image=(8, 8), seed=config["seed"], width=4)
        part = shadows.inside[:, shadow]
        scale = {"mean": config["mean"], "std": config["std"]}
        classifiers.train(
            own,
            IMAGES[part],
            LABELS[part],
            epochs=2,
            batch=20,
            seed=config["seed"],
            bf16=False,
            progress=False,
            **scale,
        )
        expected = classifiers.predict(own, IMAGES, **scale).numpy()
        np.testing.assert_allclose(seen.shadow_logits[:, shadow, 0], expected, atol=1e-5)
        np.testing.assert_allclose(seen.shadow_signals[:, shadow, 0], metrics.phi(expected, LABELS), atol=1e-4)
        np.testing.assert_allclose(classifiers.predict(network, IMAGES, **scale).numpy(), expected, atol=1e-5)
    assert len({path.name.split("-")[2] for path in trained.glob("shadow-*")}) == 4  # each with a seed of its own
    np.testing.assert_array_equal(seen.logits, target(IMAGES))
    np.testing.assert_array_equal(seen.inside, shadows.inside)


def test_images_are_found_by_their_bytes_in_any_order(trained: pathlib.Path) -> None:
    shadows = make(trained)
    order = np.random.default_rng(1).permutation(80)[:30]
    whole = shadows.collect(Target(target), IMAGES)
    part = shadows.collect(Target(target), IMAGES[order], LABELS[order])
    for name in ("logits", "labels", "signals", "shadow_signals", "inside"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[order], rtol=ROUNDING)


def test_images_that_are_not_in_the_pool_are_named(trained: pathlib.Path) -> None:
    shadows = make(trained)
    changed = IMAGES[:9].copy()
    changed[[2, 5], 0, 0, 0] += 1
    with pytest.raises(ValueError, match=r"^images: 2 of 9 are not in the shadows' pool \(first: 2, 5\)"):
        shadows.collect(Target(target), changed)
    with pytest.raises(ValueError, match=r"^images: expected uint8 images of \(C, H, W\) = \(1, 8, 8\).*float"):
        shadows.collect(Target(target), IMAGES / 255)
    wrong = LABELS[:9].copy()
    wrong[4] = (wrong[4] + 1) % 10
    with pytest.raises(ValueError, match=r"^labels: 1 differ from those of the pool \(first: 4\)"):
        shadows.collect(Target(target), IMAGES[:9], wrong)


def test_copies_of_an_image_are_inside_where_any_is(tmp_path: pathlib.Path) -> None:
    images = np.concatenate([IMAGES[:20], IMAGES[:1]])
    labels = np.concatenate([LABELS[:20], LABELS[:1]])
    inside = assign(2, 21, 0)
    inside[0], inside[20] = [True, False], [False, True]
    seen = make(tmp_path, images=images, labels=labels, inside=inside).collect(Target(target), IMAGES[:2])
    assert seen.inside[0].tolist() == [True, True]
    np.testing.assert_array_equal(seen.inside[1], inside[1])


def test_augmented_queries(tmp_path: pathlib.Path) -> None:
    """The target and the shadows are asked about the same changed images; the first is the image itself."""
    flip, move = Query(flip=True), Query(rows=1, columns=-2)
    shadows = make(tmp_path, augmentations=[flip, move])
    seen = shadows.collect(Target(target), IMAGES, LABELS)
    assert seen.shadow_signals.shape == (80, 4, 3)
    mirrored = IMAGES[:, :, :, ::-1]
    moved = np.pad(IMAGES, ((0, 0), (0, 0), (0, 1), (2, 0)), mode="edge")[:, :, 1:, :8]
    network = shadows.model(2)
    for query, images in enumerate((IMAGES, mirrored, moved)):
        np.testing.assert_array_equal(shadows.queries[query].of(IMAGES), images)
        np.testing.assert_allclose(seen.signals[:, query], metrics.phi(target(images), LABELS))
        with torch.no_grad():
            logits = network(torch.from_numpy(np.ascontiguousarray(images)).float() / 255)
        np.testing.assert_allclose(seen.shadow_signals[:, 2, query], metrics.phi(logits, LABELS), atol=1e-4)
    assert len({Query(), *shifted(4)}) == 18


def test_attacks_ask_through_the_shadows(tmp_path: pathlib.Path) -> None:
    """The whole way on real digits: one shadow is the target, attacked with the others; it leaks, and they see it."""
    images, labels = DIGITS.images[:450], DIGITS.labels[:450].copy()
    labels[::3] = np.random.default_rng(0).integers(0, 10, 150)  # wrong labels must be learned by heart
    recipe = ShadowRecipe("convnet", epochs=20, batch=50, options={"width": 8})
    shadows = make(tmp_path, images=images, labels=labels, recipe=recipe, count=6, keep_logits=False)
    attacked, others = shadows.target(5), shadows.subset(np.arange(5))
    truth = shadows.inside[:, 5]
    for attack in (LiRA(shadows=others), RMIA(shadows=others)):
        seen = attack.collect(attacked, images, labels)
        assert seen.shadows == 5
        assert seen.shadow_logits is None
        known = np.arange(450) < 150
        members, nonmembers = seen.take(known & truth), seen.take(known & ~truth)
        attack.fit(members, nonmembers)
        auc = metrics.auc(attack.score(seen.take(~known & truth)), attack.score(seen.take(~known & ~truth)))
        assert auc > 0.7
        assert auc > metrics.auc(seen.signals[~known & truth, 0], seen.signals[~known & ~truth, 0])


# ---- evaluation mode -----------------------------------------------------------------------------------------------


class Moody(nn.Module):
    """Batch norm and dropout: answers in training mode depend on the batch and on chance."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.last = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not self.norm.training
        assert not self.drop.training
        logits: torch.Tensor = self.last(self.drop(self.norm(images)).flatten(1))
        return logits


def moody(images: Any, labels: Any, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Moody()
        network.norm.running_mean = torch.tensor([0.3])
    assert network.training  # handed over in training mode, as careless training code does
    return network


class Fence(nn.Module):
    """Something around a network, itself in training mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.drop = network, nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        logits: torch.Tensor = self.drop(self.network(images)) / 2
        return logits


def fenced(network: nn.Module, members: Any, others: Any) -> nn.Module:
    assert len(members) + len(others) == len(IMAGES)
    return Fence(network)


@pytest.mark.parametrize("wrap", [None, fenced])
def test_networks_answer_in_evaluation_mode(tmp_path: pathlib.Path, wrap: Any) -> None:
    shadows = make(tmp_path, recipe=moody, wrap=wrap, classes=10)
    seen = shadows.collect(Target(target), IMAGES, LABELS)
    assert seen.shadow_logits is not None
    for shadow in range(4):
        network = moody(None, None, shadows._cells[shadow].seed).eval()
        with torch.no_grad():  # one by one: in training mode, batch norm would answer otherwise
            alone = torch.cat([network(torch.from_numpy(image[None]).float() / 255) for image in IMAGES])
        factor = 1 if wrap is None else 0.5
        np.testing.assert_allclose(seen.shadow_logits[:, shadow, 0], factor * alone.numpy(), atol=1e-5)


def real_fence(network: nn.Module, members: Any, others: Any) -> Diffence:
    """The fence as its defender would fit it to this network."""
    return Diffence(network, make_diffusion(), n=2, T=40, key=7).fit(members[:10], others[:10])


def test_shadows_answer_through_a_fence(tmp_path: pathlib.Path) -> None:
    """The labels are those of the networks, the logits are those that a fence around them gives."""
    part: dict[str, Any] = {"images": IMAGES[:40], "labels": LABELS[:40], "count": 2}
    plain = make(tmp_path, **part)
    behind = make(tmp_path, wrap=real_fence, wrap_version="1", **part)
    bare, seen = (shadows.collect(Target(target), IMAGES[:40]) for shadows in (plain, behind))
    assert bare.shadow_logits is not None
    assert seen.shadow_logits is not None
    np.testing.assert_array_equal(seen.shadow_logits.argmax(-1), bare.shadow_logits.argmax(-1))
    assert np.abs(seen.shadow_logits - bare.shadow_logits).max() > 0.01
    inside = plain.inside[:, 1]
    fence = real_fence(plain.model(1), IMAGES[:40][inside], IMAGES[:40][~inside]).eval()
    with torch.no_grad():
        expected = fence(torch.from_numpy(IMAGES[:40]).float() / 255)
    np.testing.assert_allclose(seen.shadow_logits[:, 1, 0], expected.numpy(), atol=1e-5)
    assert len(list(tmp_path.glob("shadow-*"))) == 2  # the same networks


def test_recipes_of_ours_answer_in_evaluation_mode(trained: pathlib.Path) -> None:
    network = make(trained).model(0)
    assert not any(part.training for part in network.modules())


# ---- the cache -----------------------------------------------------------------------------------------------------


def test_what_is_there_is_used(trained: pathlib.Path, trainings: list[int]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    make(trained).train()
    make(trained, n_jobs=1, keep_logits=False, progress=True).collect(Target(target), IMAGES)
    assert trainings == []
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir()} == before


SWAPPED = np.r_[1, 0, 2:80]
OTHER = LABELS.copy()
OTHER[17] = (OTHER[17] + 1) % 10
PIXEL = IMAGES.copy()
PIXEL[3, 0, 0, 0] ^= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"images": IMAGES[SWAPPED], "labels": LABELS[SWAPPED]},
        {"labels": OTHER},
        {"images": PIXEL},
        {"seed": 1},
        {"inside": ~assign(4, 80, 0)},
        {"classes": 11},
        *(
            {"recipe": dataclasses.replace(RECIPE, **change)}
            for change in (
                {"epochs": 3},
                {"lr": 2e-3},
                {"batch": 21},
                {"weight_decay": 0.0},
                {"augment": True},
                {"options": {"width": 5}},
                {"network": "resnet_small", "options": {"width": 8}},
                {"mean": (0.5,), "std": (0.5,)},
            )
        ),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_whatever_differs_is_trained_anew(
    trained: pathlib.Path, tmp_path: pathlib.Path, trainings: list[int], changes: dict[str, Any]
) -> None:
    folder = copied(trained, tmp_path)
    before = set(folder.iterdir())
    make(folder, **changes).train()
    assert len(trainings) == 4
    assert len(set(folder.iterdir()) - before) == 8
    make(folder).train()  # and the first ones are still there
    assert len(trainings) == 4


def test_othermade_with_are_trained_anew(
    trained: pathlib.Path, tmp_path: pathlib.Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(trained, tmp_path)
    versions = module.made_with()
    for changed in ({"diffence": "9.9"}, {"torch": "9.9"}):
        monkeypatch.setattr(module, "made_with", lambda changed=changed: versions | changed)
        trainings.clear()
        make(folder).train()
        assert len(trainings) == 4


def test_other_questions_need_no_training(trained: pathlib.Path, tmp_path: pathlib.Path, trainings: list[int]) -> None:
    """Other queries, or a defense around the same networks: only the answers are new."""
    folder = copied(trained, tmp_path)
    plain = make(folder).collect(Target(target), IMAGES)
    flipped = make(folder, augmentations=[Query(flip=True)]).collect(Target(target), IMAGES)
    behind = make(folder, wrap=fenced).collect(Target(target), IMAGES)
    assert trainings == []
    np.testing.assert_allclose(flipped.shadow_signals[:, :, :1], plain.shadow_signals, rtol=ROUNDING)
    assert plain.shadow_logits is not None
    assert behind.shadow_logits is not None
    np.testing.assert_allclose(behind.shadow_logits, plain.shadow_logits / 2, rtol=1e-5, atol=ROUNDING)


def test_a_damaged_file_is_put_aside_and_made_again(
    trained: pathlib.Path, tmp_path: pathlib.Path, trainings: list[int]
) -> None:
    folder = copied(trained, tmp_path)
    expected = make(folder).collect(Target(target), IMAGES).shadow_signals
    answers, network = next(folder.glob("answers-001-*")), next(folder.glob("shadow-002-*"))
    answers.write_bytes(answers.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=r"answers-001-.*it is kept as answers-001-.*\.damaged, and made again"):
        found = make(folder).collect(Target(target), IMAGES).shadow_signals
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)
    assert trainings == []  # its network is there
    network.write_bytes(b"nothing of ours")
    next(folder.glob("answers-002-*")).unlink()
    with pytest.warns(UserWarning, match=r"shadow-002-.*\.damaged, and made again"):
        found = make(folder).collect(Target(target), IMAGES).shadow_signals
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)
    assert len(trainings) == 1
    assert len(list(folder.glob("*.damaged"))) == 2


# ---- training functions and their versions -------------------------------------------------------------------------

SCALE = 1.0


def helper() -> float:
    return SCALE


def plain_recipe(images: Any, labels: Any, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network[1].weight.data *= helper()
    CALLS.append((len(images), images.dtype, seed))
    return network


CALLS: list[Any] = []


def test_a_training_function(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    shadows = make(tmp_path, recipe=plain_recipe).train()
    sizes = shadows.inside.sum(axis=0)
    assert [(size, dtype) for size, dtype, _ in CALLS] == [(size, np.uint8) for size in sizes]
    assert len({seed for *_, seed in CALLS}) == 4
    make(tmp_path, recipe=plain_recipe).train()
    assert len(CALLS) == 4
    # A constant that a function of its module uses is a part of what it does.
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 2.0)
    make(tmp_path, recipe=plain_recipe).train()
    assert len(CALLS) == 8
    with pytest.raises(ValueError, match=r"^recipe: the networks of a training function are not kept"):
        shadows.model(0)


def test_versions_of_functions(tmp_path: pathlib.Path) -> None:
    width = 64

    def closure(images: Any, labels: Any, seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 10))

    with pytest.raises(ValueError, match=r"^version: needed for a recipe that is no plain function, or .* closure"):
        make(tmp_path, recipe=closure)
    with pytest.raises(ValueError, match=r"^wrap_version: needed for a wrap"):
        make(tmp_path, wrap=Fence)
    first = make(tmp_path, recipe=closure, version="1").train()
    assert len(list(tmp_path.iterdir())) == 4
    make(tmp_path, recipe=closure, version="2").train()
    assert len(list(tmp_path.iterdir())) == 8
    assert len(first) == 4
    with pytest.raises(ValueError, match=r"^version: is for training functions"):
        make(tmp_path, version="1")
    with pytest.raises(TypeError, match=r"^recipe: expected a torch.nn.Module to be returned, got NoneType"):
        make(tmp_path, recipe=lambda images, labels, seed: None, version="1b").train()


# ---- stopped, killed, in parallel ----------------------------------------------------------------------------------

LONG = """
    import sys
    from diffence.data import load
    from diffence.shadows import ShadowRecipe, Shadows
    data = load("digits")
    recipe = ShadowRecipe("convnet", epochs=40, batch=20, options={"width": 8})
    made = Shadows(data.images[:80], data.labels[:80], recipe, folder=sys.argv[1], seed=0, count=4, progress=False)
    print("ready", flush=True)
    made.train()
"""


def started(folder: pathlib.Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LONG), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_killed_and_gone_on(tmp_path: pathlib.Path, trainings: list[int]) -> None:
    """kill -9 after the first shadow: it is kept, the others are trained, and all are as if nothing had happened."""
    process = started(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/answers-000-*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = len(list(tmp_path.glob("killed/shadow-*.safetensors")))
    assert 1 <= done < 4
    recipe = ShadowRecipe("convnet", epochs=40, batch=20, options={"width": 8})
    found = make(tmp_path / "killed", recipe=recipe).collect(Target(target), IMAGES)
    assert len(trainings) == 4 - done
    whole = make(tmp_path / "whole", recipe=recipe).collect(Target(target), IMAGES)
    np.testing.assert_array_equal(found.shadow_signals, whole.shadow_signals)
    assert not list(tmp_path.glob("killed/*.state"))


def test_interrupted_and_gone_on(tmp_path: pathlib.Path) -> None:
    """Ctrl-C in the middle of a training: its state is there, and is gone on from."""
    process = started(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    recipe = ShadowRecipe("convnet", epochs=40, batch=20, options={"width": 8})
    shadows = make(tmp_path, recipe=recipe).train()
    assert np.isfinite(shadows.collect(Target(target), IMAGES).shadow_signals).all()
    assert not list(tmp_path.glob("*.part"))


def test_a_half_trained_shadow_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the state that the training left, not from the beginning, to the same bits."""
    from diffence.classifiers import training

    whole = make(tmp_path / "whole").collect(Target(target), IMAGES).shadow_signals
    learn, steps = training._Training._learn, []

    def stop(self: Any, indices: Any) -> None:
        if len(steps) == 3:
            self.save(next(iter(states)))
            raise KeyboardInterrupt
        steps.append(1)
        learn(self, indices)

    part = make(tmp_path / "part")
    states = [module._state(part._cells[0].network)]
    part.folder.mkdir()
    monkeypatch.setattr(training._Training, "_learn", stop)
    with pytest.raises(KeyboardInterrupt):
        part.train()
    assert states[0].exists()
    count: list[int] = []

    def counted(self: Any, indices: Any) -> None:
        count.append(1)
        learn(self, indices)

    monkeypatch.setattr(training._Training, "_learn", counted)
    found = make(tmp_path / "part").collect(Target(target), IMAGES).shadow_signals
    np.testing.assert_array_equal(found, whole)
    steps_of_all = sum(2 * -(-int(size) // 20) for size in part.inside.sum(axis=0))
    assert steps_of_all - 3 - 8 <= len(count) <= steps_of_all - 3


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_cells_give_the_same_bits(trained: pathlib.Path, tmp_path: pathlib.Path, backend: str) -> None:
    """In other processes, or in threads, which share torch's settings and so take turns."""
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = make(tmp_path).collect(Target(target), IMAGES)
    expected = make(trained).collect(Target(target), IMAGES)
    np.testing.assert_array_equal(found.shadow_signals, expected.shadow_signals)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


# ---- what is refused before anything is trained --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"count": 1}, ValueError, r"^count: expected an integer of at least 2, got 1"),
        ({"seed": -1}, ValueError, r"^seed: "),
        ({"seed": 1.5}, ValueError, r"^seed: "),
        ({"inside": assign(4, 79, 0)}, ValueError, r"^inside: expected shape \(80, shadows >= 2\)"),
        ({"inside": np.ones((80, 1), bool)}, ValueError, r"^inside: expected shape"),
        ({"inside": np.ones((80, 3))}, TypeError, r"^inside: expected True or False"),
        (
            {"inside": np.arange(160).reshape(80, 2) == 4},
            ValueError,
            r"^inside: shadow 0 would be trained on 1 samples",
        ),
        ({"images": IMAGES[:, 0]}, ValueError, r"^images: expected four dimensions"),
        ({"images": IMAGES.astype(float)}, ValueError, r"^images: expected values in \[0, 1\]"),
        ({"images": IMAGES[:3], "labels": LABELS[:3]}, ValueError, r"^images: expected 4 or more"),
        ({"labels": LABELS[:79]}, ValueError, r"^labels: expected shape \(80,\)"),
        ({"labels": LABELS.astype(float)}, TypeError, r"^labels: expected integer"),
        ({"labels": LABELS * 0}, ValueError, r"^labels: expected two classes or more"),
        ({"classes": 5}, ValueError, r"^labels: expected values in 0..4"),
        ({"recipe": "resnet"}, TypeError, r"^recipe: expected a ShadowRecipe or a function"),
        ({"recipe": ShadowRecipe(options={"width": np.ones(3)})}, TypeError, r"^recipe: options must be JSON"),
    ],
)
def test_bad_arguments_are_refused_early(
    tmp_path: pathlib.Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_recipes_are_checked() -> None:
    for arguments, message in (
        ({"network": "vgg99"}, r"^network: "),
        ({"epochs": 0}, r"^epochs: "),
        ({"batch": 0}, r"^batch: "),
        ({"mean": (0.5,)}, r"^mean, std: give both or neither"),
    ):
        with pytest.raises(ValueError, match=message):
            ShadowRecipe(**arguments)  # type: ignore[arg-type]


def test_subsets(trained: pathlib.Path, trainings: list[int]) -> None:
    shadows = make(trained)
    part = shadows.subset([3, 1])
    np.testing.assert_array_equal(part.inside, shadows.inside[:, [3, 1]])
    whole = shadows.collect(Target(target), IMAGES)
    np.testing.assert_array_equal(part.collect(Target(target), IMAGES).shadow_signals, whole.shadow_signals[:, [3, 1]])
    assert trainings == []
    with pytest.raises(ValueError, match=r"^index: expected at least one shadow of 4"):
        shadows.subset([])
