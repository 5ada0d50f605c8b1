"""Shadow models: classifiers that an attacker trains like the target, to see what membership does to their answers.

shadows = Shadows(images, labels, ShadowRecipe(epochs=30), count=16, seed=0, folder="artifacts/shadows")
audit = evaluate(LiRA(shadows=shadows), ...)
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import joblib
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from diffence import classifiers
from diffence.attacks.base import as_array
from diffence.attacks.shadow import ShadowOutputs, assign, phi_of_label
from diffence.attacks.target import Images, Target
from diffence.classifiers.inputs import class_labels
from diffence.classifiers.training import _STATE_KIND as STATE_KIND
from diffence.data import normalisation
from diffence.files import load_intact, made_with, save_tensors
from diffence.images import as_images
from diffence.progress import tqdm
from diffence.training import one_torch_thread

__all__ = ["Query", "ShadowRecipe", "Shadows", "shifted"]

_ANSWERS = "shadow answers"
_BATCH = 256  # images asked at once
_ONE_AT_A_TIME = threading.Lock()  # joblib's threads would share torch's number of threads and its random generator

Train = Callable[[Images, NDArray[np.int64], int], nn.Module]
Wrap = Callable[[nn.Module, Images, Images], Any]


class Query(NamedTuple):
    """A changed version of an image: mirrored or not, then moved up by `rows` and left by `columns` pixels.

    Pixels that come in from outside repeat the edge, as in the augmentation of our training.
    """

    flip: bool = False
    rows: int = 0
    columns: int = 0

    def of(self, images: Images) -> Images:
        """This version of all images (n, C, H, W)."""
        height, width = images.shape[2:]
        row = (np.arange(height) + self.rows).clip(0, height - 1)
        column = (np.arange(width) + self.columns).clip(0, width - 1)
        return np.ascontiguousarray(images[:, :, row][:, :, :, width - 1 - column if self.flip else column])


def shifted(pixels: int) -> list[Query]:
    """The 17 queries beside the image itself of Carlini et al.'s 18: mirrored or not, moved by 0 or +-`pixels`."""
    steps = (0, -pixels, pixels)
    return [Query(flip, rows, columns) for flip in (False, True) for rows in steps for columns in steps][1:]


@dataclasses.dataclass(frozen=True)
class ShadowRecipe:
    """How each shadow is made: a network of diffence.classifiers, and how it is trained. It should be the target's.

    options: the network's own, such as {"width": 16}. mean, std: normalisation, one value a channel in units of [0, 1]
    images; None takes those of the whole pool. The others are those of `classifiers.train`.
    """

    network: str = "resnet_small"
    epochs: int = 40
    lr: float = 1e-3
    batch: int = 128
    weight_decay: float = 1e-6
    augment: bool = False
    bf16: bool = False
    device: str = "cpu"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.network not in classifiers.NETWORKS:
            raise ValueError(f"network: expected one of {', '.join(classifiers.NETWORKS)}, got {self.network!r}")
        for name, least in (("epochs", 1), ("batch", 1)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {getattr(self, name)!r}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean, std: give both or neither")


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """What a worker needs to know of every shadow."""

    recipe: ShadowRecipe | Train
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    queries: tuple[Query, ...]
    wrap: Wrap | None


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One shadow: its number in the pool's membership, the seed of its training, and its files with what they are."""

    number: int
    seed: int
    network: pathlib.Path
    network_key: dict[str, Any]
    answers: pathlib.Path
    answers_key: dict[str, Any]


class _Parallel(joblib.Parallel):  # type: ignore[misc]
    """joblib.Parallel with a bar. (Results as they come, `return_as`, would do, but Ray's backend has none.)"""

    def __init__(self, bar: Any, *, n_jobs: int | None) -> None:
        super().__init__(n_jobs=n_jobs)
        self.bar, self.before = bar, bar.n

    def print_progress(self) -> None:
        self.bar.update(self.before + self.n_completed_tasks - self.bar.n)


class _Unit(nn.Module):
    """A classifier behind its normalisation: images in [0, 1] -> logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier((images - self.mean) / self.std)
        return logits


class Shadows:
    """`count` shadow models, each trained on half of a pool, and their answers to all of it; kept in `folder`.

    images (n, C, H, W), uint8 or floating point in [0, 1], labels (n,): the pool. It holds every sample that is to be
    attacked, beside others: a shadow is asked about nothing else. Training sets are about n / 2 large; a target that
    was trained on more or fewer samples is attacked less well.
    recipe: a ShadowRecipe, or a function (images, labels, seed) -> nn.Module that trains a network; the network takes
        float32 images in [0, 1].
    folder: of the cache. One file a network (of a ShadowRecipe) and one of its answers, named by the content of the
        pool in its order, the membership, the seed, the recipe, and the versions of diffence and torch: what differs in
        any of them is not used. What is there is not trained again; a training that was stopped or killed goes on from
        its last state (with a ShadowRecipe), and finished shadows are kept. A damaged file is put aside as
        `<name>.damaged` with a warning, and made again. A worker elsewhere must see the same folder.
    count, seed: membership by `attacks.assign`; inside (n, count) bool gives another one.
    augmentations: changed versions of each image, asked beside the image itself.
    wrap: puts something around each network before it is asked, such as a fence: a function (network, members, others)
        -> module, where the network and the module take images in [0, 1], members are the images that the network was
        trained on, and others the rest of the pool. Shadows are then asked through the whole defense, fitted as the
        target's defender fits it.
    version, wrap_version: of a training function and of `wrap`. None takes their source, with what it names in its own
        module; code that it calls elsewhere is not seen. Needed where there is no such source, or a closure.
    n_jobs: of joblib.Parallel; None does what a surrounding `joblib.parallel_config` says (which is also the way to a
        cluster: backend="ray" or "dask"), and one after the other where there is none. Each uses one thread.
    keep_logits: keep all logits for attacks that need more than phi_y (4 bytes x n x count x queries x classes).

    Networks are always asked in evaluation mode. Raises ValueError or TypeError naming the argument, before anything
    is trained.
    """

    def __init__(
        self,
        images: Images,
        labels: ArrayLike,
        recipe: ShadowRecipe | Train,
        *,
        folder: str | os.PathLike[str],
        seed: int,
        count: int = 16,
        inside: ArrayLike | None = None,
        classes: int | None = None,
        augmentations: Sequence[Query] = (),
        wrap: Wrap | None = None,
        version: str | None = None,
        wrap_version: str | None = None,
        n_jobs: int | None = None,
        keep_logits: bool = True,
        progress: bool = True,
    ) -> None:
        self.images, self.labels = _pool(images, labels, classes)
        n = len(self.images)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: expected an integer of at least 0, got {seed!r}")
        self.inside = assign(count, n, seed) if inside is None else _membership(inside, n)
        small = np.flatnonzero(self.inside.sum(axis=0) < 2)
        if len(small):
            size = int(self.inside[:, small[0]].sum())
            raise ValueError(f"inside: shadow {small[0]} would be trained on {size} samples, expected 2 or more")
        self.folder, self.seed, self.n_jobs = pathlib.Path(folder).resolve(), seed, n_jobs
        self.keep_logits, self.progress = keep_logits, progress
        mean, std = _normalisation(self.images, recipe)
        total = int(self.labels.max()) + 1 if classes is None else classes
        self._task = _Task(recipe, total, mean, std, (Query(), *(Query(*own) for own in augmentations)), wrap)
        made_by = _recipe_key(recipe, version)
        wrapped = None if wrap is None else _source_key("wrap", wrap, wrap_version)
        pool = _digest(self.images, self.labels)
        self._cells = [self._cell(number, pool, made_by, wrapped) for number in range(self.inside.shape[1])]
        self._where = _index(self.images)
        self._signals: NDArray[np.float64] | None = None
        self._logits: NDArray[np.float32] | None = None

    def _cell(self, number: int, pool: str, made_by: dict[str, Any], wrapped: dict[str, Any] | None) -> _Cell:
        seed = int(np.random.default_rng([self.seed, number]).integers(2**31))
        key: dict[str, Any] = {
            "pool": pool,
            "classes": self._task.classes,
            "inside": hashlib.sha256(np.packbits(self.inside[:, number]).tobytes()).hexdigest(),
            "seed": seed,
            "mean": list(self._task.mean),
            "std": list(self._task.std),
            "versions": made_with() | {"format": "1"},
            **made_by,
        }
        asked = {"network": key, "queries": [list(query) for query in self._task.queries], "wrap": wrapped}
        return _Cell(
            number,
            seed,
            self.folder / f"shadow-{number:03d}-{_name(key)}.safetensors",
            key,
            self.folder / f"answers-{number:03d}-{_name(asked)}.safetensors",
            asked,
        )

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def queries(self) -> tuple[Query, ...]:
        """What each image is asked as; the first is the image itself."""
        return self._task.queries

    def train(self) -> Self:
        """Train and ask the shadows that are not in `folder` yet; -> self. `collect` does it where it was not done."""
        missing = [(place, cell) for place, cell in enumerate(self._cells) if self._read(cell) is None]
        if not missing:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=len(self), initial=len(self) - len(missing), desc="shadows", disable=not self.progress) as bar:
            _Parallel(bar, n_jobs=self.n_jobs)(
                joblib.delayed(_work)(cell, self._task, self.images, self.labels, self.inside[:, place])
                for place, cell in missing
            )
        return self

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> ShadowOutputs:
        """The target's answers to `images` (n, C, H, W), all in the pool, beside those of the shadows.

        labels: (n,), the pool's where it is None. Images are found by their bytes; one that is in the pool more than
        once counts as inside a shadow that was trained on any copy. Raises ValueError naming images that the pool does
        not hold, and labels that are not the pool's.
        """
        asked = np.asarray(images)
        if asked.shape[1:] != self.images.shape[1:] or asked.dtype != self.images.dtype or len(asked) == 0:
            raise ValueError(
                f"images: expected {self.images.dtype} images of (C, H, W) = {self.images.shape[1:]}, as in the pool; "
                f"got {asked.dtype} {asked.shape}"
            )
        copies = [self._where.get(_content(image), []) for image in asked]
        strange = [number for number, own in enumerate(copies) if not own]
        if strange:
            raise ValueError(
                f"images: {len(strange)} of {len(asked)} are not in the shadows' pool (first: {_some(strange)})"
            )
        place = np.array([own[0] for own in copies])
        if labels is not None:
            truth = class_labels(as_array(labels), len(asked), self._task.classes).numpy()
            other = [number for number, own in enumerate(copies) if truth[number] not in self.labels[own]]
            if other:
                raise ValueError(f"labels: {len(other)} differ from those of the pool (first: {_some(other)})")
            place = np.array(
                [own[int(np.flatnonzero(self.labels[own] == truth[number])[0])] for number, own in enumerate(copies)]
            )
        inside = self.inside[place]
        for number, own in enumerate(copies):
            if len(own) > 1:
                inside[number] = self.inside[own].any(axis=0)
        signals, logits = self._answers()
        answers = np.stack([target(query.of(asked)) for query in self.queries], axis=1)
        truth = self.labels[place]
        return ShadowOutputs(
            answers[:, 0],
            truth,
            signals[place],
            inside,
            signals=phi_of_label(answers, truth),
            query_logits=answers if logits is not None else None,
            shadow_logits=None if logits is None else logits[place],
        )

    def subset(self, index: ArrayLike) -> Shadows:
        """Some of the shadows, by their numbers or a mask, with the same cache: to leave out one that is the target."""
        wanted = np.asarray(index)
        numbers = np.arange(len(self))[wanted] if wanted.dtype.kind in "iub" else np.empty(0, np.int64)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise ValueError(f"index: expected at least one shadow of {len(self)}, got {index!r}")
        chosen = copy.copy(self)
        chosen._cells = [self._cells[number] for number in numbers]
        chosen.inside = self.inside[:, numbers]
        chosen._signals = chosen._logits = None
        return chosen

    def model(self, index: int) -> Any:
        """Shadow `index` as it is asked, in evaluation mode: images in [0, 1] -> logits. Trained where it is missing.

        Only for a ShadowRecipe: of a training function's networks the answers alone are kept.
        """
        cell = self._cells[index]
        if not isinstance(self._task.recipe, ShadowRecipe):
            raise ValueError("recipe: the networks of a training function are not kept, only their answers")
        if self._read(cell) is None or not cell.network.exists():
            self.subset([index]).train()
        network, _ = classifiers.load(cell.network)
        return _wrapped(network.to(self._task.recipe.device), self._task, self.images, self.inside[:, index])

    def target(self, index: int) -> Target:
        """Shadow `index` as a target, for experiments in which the attacker trains what he attacks.

        Attack it with the others (`subset`), and mind that in an `assign` membership with a fixed number of models for
        each sample, those that remain tell by their number whether this one was trained on it.
        """
        module = self.model(index)
        return Target(lambda images: _ask(module, images, self._task))

    def _answers(self) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Signals (n, shadows, queries) and logits (n, shadows, queries, classes) of the whole pool."""
        if self._signals is None:
            self.train()
            n, shape = len(self.images), (len(self), len(self.queries))
            signals = np.empty((n, *shape))
            logits = np.empty((n, *shape, self._task.classes), np.float32) if self.keep_logits else None
            for place, cell in enumerate(self._cells):
                own = self._read(cell)
                if own is None:
                    raise RuntimeError(f"{cell.answers}: gone or damaged since it was written")
                signals[:, place] = phi_of_label(own, self.labels)
                if logits is not None:
                    logits[:, place] = own
            self._signals, self._logits = signals, logits
        return self._signals, self._logits

    def _read(self, cell: _Cell) -> NDArray[np.float32] | None:
        """The cached answers (n, queries, classes), or None; damaged files are put aside."""
        loaded = load_intact(cell.answers, _ANSWERS)
        if loaded is not None and loaded[1] == cell.answers_key:
            answers: NDArray[np.float32] = loaded[0]["logits"].numpy()
            return answers
        for path, kind in ((cell.network, "classifier"), (_state(cell.network), STATE_KIND)):
            load_intact(path, kind)
        return None


# ---- what a worker does ------------------------------------------------------------------------------------------


def _work(cell: _Cell, task: _Task, images: Images, labels: NDArray[np.int64], inside: NDArray[np.bool_]) -> str:
    """Train one shadow, ask it about the whole pool, write its answers; -> their path."""
    with _ONE_AT_A_TIME, one_torch_thread():
        module = _wrapped(_network(cell, task, images[inside], labels[inside]), task, images, inside)
        logits = np.stack([_ask(module, query.of(images), task) for query in task.queries], axis=1)
        if not np.isfinite(logits).all():
            raise ValueError(f"shadow {cell.number}: its answers hold NaN or infinity")
        save_tensors(cell.answers, _ANSWERS, {"logits": torch.from_numpy(logits)}, cell.answers_key)
    return str(cell.answers)


def _network(cell: _Cell, task: _Task, images: Images, labels: NDArray[np.int64]) -> nn.Module:
    """The trained network, as it takes images; from the cache where it is there."""
    recipe = task.recipe
    if not isinstance(recipe, ShadowRecipe):
        trained = recipe(images, labels, cell.seed)
        if not isinstance(trained, nn.Module):
            raise TypeError(f"recipe: expected a torch.nn.Module to be returned, got {type(trained).__name__}")
        return trained
    if cell.network.exists():
        network, config = classifiers.load(cell.network)
        if config["trained"].get("shadow") == cell.network_key:
            return network.to(recipe.device)
    network = classifiers.build(
        recipe.network,
        classes=task.classes,
        channels=images.shape[1],
        image=images.shape[2:],
        seed=cell.seed,
        **recipe.options,
    ).to(recipe.device)
    classifiers.train(
        network,
        images,
        labels,
        epochs=recipe.epochs,
        seed=cell.seed,
        mean=task.mean,
        std=task.std,
        lr=recipe.lr,
        batch=recipe.batch,
        weight_decay=recipe.weight_decay,
        augment=recipe.augment,
        bf16=recipe.bf16,
        out=cell.network,
        notes={"shadow": cell.network_key},
        progress=False,
    )
    return network


def _wrapped(network: nn.Module, task: _Task, images: Images, inside: NDArray[np.bool_]) -> Any:
    """What is asked: the network on images in [0, 1], with `wrap` around it, in evaluation mode."""
    module: Any = network
    if isinstance(task.recipe, ShadowRecipe):
        module = _Unit(network, task.mean, task.std).to(task.recipe.device)
    module.eval()
    if task.wrap is not None:
        module = task.wrap(module, images[inside], images[~inside])
        if isinstance(module, nn.Module):
            module.eval()
    return module


def _ask(module: Any, images: Images, task: _Task) -> NDArray[np.float32]:
    """Logits (n, classes) of images, uint8 or in [0, 1]."""
    device = task.recipe.device if isinstance(task.recipe, ShadowRecipe) else _device(module)
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(as_images(images[start : start + _BATCH])).to(device)
            parts.append(torch.as_tensor(module(batch)).float().cpu())
    logits = torch.cat(parts).numpy()
    if logits.shape != (len(images), task.classes):
        raise ValueError(f"shadow: expected logits of shape ({len(images)}, {task.classes}), got {logits.shape}")
    return np.asarray(logits)


def _device(module: Any) -> torch.device:
    parameters = module.parameters() if isinstance(module, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


# ---- what the cache goes by --------------------------------------------------------------------------------------


def _name(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _digest(images: Images, labels: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for array in (images, labels):
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _recipe_key(recipe: ShadowRecipe | Train, version: str | None) -> dict[str, Any]:
    if isinstance(recipe, ShadowRecipe):
        if version is not None:
            raise ValueError("version: is for training functions; a ShadowRecipe is known by its fields")
        try:
            fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
        except TypeError as error:
            raise TypeError(f"recipe: options must be JSON-serialisable: {error}") from error
        return {"recipe": fields}
    if not callable(recipe):
        raise TypeError(f"recipe: expected a ShadowRecipe or a function that trains, got {type(recipe).__name__}")
    return {"recipe": _source_key("recipe", recipe, version)}


def _source_key(name: str, function: Callable[..., Any], version: str | None) -> dict[str, Any]:
    """What tells a user's function from another: its version, or its source and what it uses of its own module."""
    if version is not None:
        return {"version": version}
    argument = "version" if name == "recipe" else f"{name}_version"
    if not isinstance(function, types.FunctionType) or function.__closure__:
        raise ValueError(f"{argument}: needed for a {name} that is no plain function, or that has a closure")
    found: dict[str, str] = {}
    try:
        _add_source(function, found)
    except OSError as error:
        raise ValueError(f"{argument}: needed for a {name} whose source cannot be read ({error})") from error
    return {"source": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()}


def _add_source(function: types.FunctionType, found: dict[str, str]) -> None:
    """Source and defaults of `function`, and the constants and functions of its module that it names, one by one."""
    if function.__qualname__ in found:
        return
    found[function.__qualname__] = f"{inspect.getsource(function)}{function.__defaults__}{function.__kwdefaults__}"
    codes = [function.__code__]
    for code in codes:
        codes += [own for own in code.co_consts if isinstance(own, types.CodeType)]
        for used in code.co_names:
            value = function.__globals__.get(used)
            if isinstance(value, bool | int | float | str | tuple):
                found[used] = repr(value)
            elif isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
                _add_source(value, found)


def _state(network: pathlib.Path) -> pathlib.Path:
    return network.with_name(f"{network.name}.state")


# ---- checked input -----------------------------------------------------------------------------------------------


def _pool(images: Images, labels: ArrayLike, classes: int | None) -> tuple[Images, NDArray[np.int64]]:
    pool = np.ascontiguousarray(as_array(images) if not isinstance(images, np.ndarray) else images)
    if pool.dtype == np.uint8 and pool.ndim == 4 and len(pool):
        as_images(pool[:1])
    else:
        as_images(pool)
    if len(pool) < 4:
        raise ValueError(f"images: expected 4 or more, so that a half of them can be trained on; got {len(pool)}")
    if classes is not None and classes < 2:
        raise ValueError(f"classes: expected at least 2, got {classes}")
    truth = class_labels(as_array(labels), len(pool), 2**31 if classes is None else classes).numpy()
    if truth.max() == 0 and classes is None:
        raise ValueError("labels: expected two classes or more, got one; give classes=")
    return pool, truth


def _membership(inside: ArrayLike, n: int) -> NDArray[np.bool_]:
    array = as_array(inside)
    if array.dtype != np.bool_:
        raise TypeError(f"inside: expected True or False, got {array.dtype}")
    if array.ndim != 2 or len(array) != n or array.shape[1] < 2:
        raise ValueError(f"inside: expected shape ({n}, shadows >= 2), a sample a row, got {array.shape}")
    return np.array(array)


def _normalisation(images: Images, recipe: ShadowRecipe | Train) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not isinstance(recipe, ShadowRecipe):
        return (), ()
    if recipe.mean is not None and recipe.std is not None:
        return tuple(recipe.mean), tuple(recipe.std)
    if images.dtype == np.uint8:
        return normalisation(images)
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64)
    std = images.std(axis=(0, 2, 3), dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())


def _index(images: Images) -> dict[bytes, list[int]]:
    """Hash of an image's bytes -> where it is in the pool."""
    where: dict[bytes, list[int]] = {}
    for number, image in enumerate(images):
        where.setdefault(_content(image), []).append(number)
    return where


def _content(image: Images) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def _some(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers[:5]) + (", ..." if len(numbers) > 5 else "")
