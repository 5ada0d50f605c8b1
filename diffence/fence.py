"""The fence: a classifier that never sees the images it is asked about, only reconstructions of them.

Peng, Naseh, Houmansadr, "Diffence: Fencing Membership Privacy With Diffusion Models", NDSS 2025. Data flows one way:
images -> `sample` (reconstruct, classify) -> `answer` (select or average) -> logits.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core
from diffence.answers import OUTCOMES, Answer, Explanation, Samples, average, explanations
from diffence.engine import Engine, Mode, Precision, key_bytes
from diffence.files import load_tensors, save_tensors
from diffence.progress import tqdm
from diffence.selection import FALLBACK, search_interval, select, swap_label
from diffence.unets import DDPMUNet, DiffusionModel, load
from diffence.wrapping import Classify, NormStat

__all__ = ["Diffence", "NoAgreementError"]

Images = torch.Tensor | NDArray[Any]
# Images whose draws are held at once: eight batches of them, so that batches stay full when draws stop early, but no
# more than have their logits in 256 MiB.
_WINDOW = 256
_LOGITS = 1 << 26
_FILE_KIND = "fence"
_SETTINGS = ("scenario", "n", "T", "k", "aggregate", "mode", "draws", "fallback")


class NoAgreementError(RuntimeError):
    """No reconstruction of some image has its label, and the fence was told to raise. `.images` are their indices."""

    def __init__(self, images: Sequence[int]) -> None:
        self.images = list(images)
        shown = ", ".join(map(str, self.images[:10])) + (", ..." if len(self.images) > 10 else "")
        super().__init__(
            f"no reconstruction keeps the label of {len(self.images)} image(s): {shown}; "
            "use fallback='swap', a larger n or a smaller T"
        )


class Diffence(torch.nn.Module):
    """`classifier`, fenced: the same call, the same labels, and logits that tell less about the training set.

    classifier: a module in evaluation mode, images -> logits (B, classes). Whether an answer has the same bits in any
        company is up to it too: compiled by torch.compile, on some processors its last bits depend on an image's place.
    diffusion: path of a checkpoint or a loaded diffusion model, best trained on the classifier's own kind of images;
        or an Engine, to be shared with other fences.
    scenario: what the defender has (paper section 3.3): 1, members and non-members: the interval of phi with the
        smallest Jensen-Shannon divergence between them; 2, members: [min phi, mean phi]; 3, nothing: any draw that
        agrees. Scenarios 1 and 2 need `fit`.
    n, T, k: reconstructions an image, noise level (1-based), DDIM stride (None: k = T, one evaluation a draw).
    aggregate: None to select; "logits" or "probabilities" to average all n draws instead, which may change labels
        and needs no `fit`. Averaged probabilities are returned as their logarithm, so that softmax gives them back.
    mode: "paper", or "official" for the arithmetic of the authors' release: its noising, its phi, and the original's
        own logits as the last candidate (so `fallback` is "original" there, and scenario 3 needs `fit` too).
    draws: "full" computes all n, in constant work; "early" stops at the first acceptable draw and answers bit for
        bit the same, but its latency depends on the image: for offline evaluation only.
    fallback: when no draw agrees: "swap" shows the draw whose phi is nearest, with its largest value and its label's
        exchanged (`selection.swap_label`); "original" shows the unprotected logits; "raise" raises NoAgreementError.
    key: the noise's secret, 16 bytes or an integer below 2^128; None draws a fresh one. `save` keeps it.
    mean, std: the classifier's normalisation per channel, in units of [0, 1] images; None if it takes [0, 1].
    device, precision, threads, batch: of the Engine, where `diffusion` is not one.
    classifier_batch: the fixed batch in which the classifier is asked, so that an answer depends on the image and the
        key alone. None: 16, and 256 for a classifier on a GPU.

    Images are (B, C, H, W), uint8 or float in [0, 1]. `fence(images)` returns logits (B, classes) on the classifier's
    device and in its dtype, without gradients. `counts` adds up how answers were found. The fence and its classifier
    stay in evaluation mode whatever `train()` is called with. `to("cuda")` moves both to a GPU, where
    the noise is the same but for a last digit; near an interval's edge another draw may answer there.
    """

    def __init__(
        self,
        classifier: torch.nn.Module,
        diffusion: str | os.PathLike[str] | DiffusionModel | DDPMUNet | Engine,
        *,
        scenario: int = 1,
        n: int = 30,
        T: int = 160,
        k: int | None = None,
        aggregate: Literal["logits", "probabilities"] | None = None,
        mode: Mode = "paper",
        draws: Literal["full", "early"] = "full",
        fallback: Literal["swap", "original", "raise"] = "swap",
        key: int | bytes | None = None,
        mean: NormStat = None,
        std: NormStat = None,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        batch: int | None = None,
        classifier_batch: int | None = None,
    ) -> None:
        super().__init__()
        _one_of("scenario", scenario, (1, 2, 3))
        _one_of("aggregate", aggregate, (None, "logits", "probabilities"))
        _one_of("mode", mode, ("paper", "official"))
        _one_of("draws", draws, ("full", "early"))
        _one_of("fallback", fallback, ("swap", "original", "raise"))
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 1_000_000:
            raise ValueError(f"n: expected a whole number of reconstructions, 1 to 1000000, got {n!r}")
        if aggregate is not None and draws == "early":
            raise ValueError("draws: averaging needs all n draws; use draws='full'")
        if mode == "official":
            if fallback == "raise":
                raise ValueError("fallback: mode 'official' always has the original as a candidate; nothing to raise")
            fallback = "original"
        self.scenario, self.n, self.T, self.k = scenario, n, T, T if k is None else k
        self.aggregate, self.mode, self.draws, self.fallback = aggregate, mode, draws, fallback
        self.key = secrets.token_bytes(16) if key is None else key_bytes(key)
        self.interval_: tuple[float, float] | None = None
        self.search_: dict[str, Any] | None = None
        self.calibration_: dict[str, Any] | None = None
        if isinstance(diffusion, Engine):
            self.engine, self.diffusion = diffusion, diffusion.diffusion
        else:
            self.diffusion = load(diffusion)
            self.engine = Engine(
                self.diffusion, device=device or "cpu", precision=precision, threads=threads, batch=batch
            )
        self.engine.sampler(self.T, self.k, self.mode)  # T, k and mode fit the diffusion model, or say so now
        self._classify = Classify(classifier, self.engine.shape, mean, std, classifier_batch)
        self.classifier = classifier
        self._lock = threading.Lock()
        self.reset_counts()
        super().train(False)

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process: the engine, made again by __setstate__, and the lock."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("engine", "_lock")}
        return kept | {"_engine_options": self.engine.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.engine = Engine(self.diffusion, **self.__dict__.pop("_engine_options"))
        self._lock = threading.Lock()

    @property
    def classes(self) -> int:
        return self._classify.classes

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `torch.nn.Module.to`; a device is the diffusion network's too, where there is an engine for it."""
        moved = super().to(*args, **kwargs)
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None and device != torch.device(self.engine.options["device"]):
            options = self.engine.options | {"device": device, "batch": None, "isa": None}
            self.engine = Engine(self.diffusion, **options)
        return moved

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """`to("cuda")`."""
        return self.to(torch.device("cuda", device) if isinstance(device, int) else device or torch.device("cuda"))

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def train(self, mode: bool = True) -> Self:
        """Keep evaluation mode: a fence answers queries, its parts are never trained through it."""
        return super().train(False)

    def reset_counts(self) -> None:
        """Set `counts` to zero."""
        self.counts = dict.fromkeys(("images", "inside", "nearest", "fallback", "labels_changed", "draws"), 0)

    def settings(self) -> dict[str, Any]:
        """scenario, n, T, k, aggregate, mode, draws and fallback, as the constructor takes them."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def classifier_settings(self) -> dict[str, Any]:
        """mean, std and classifier_batch, as the constructor takes them."""
        return self._classify.settings()

    def variant(self, **options: Any) -> Self:
        """An unfitted fence with other options around the same classifier, sharing this one's engine and key.

        options: those of the constructor, other than the engine's own. A new T without k means k = T.
        """
        settings = self.settings() | {"key": self.key} | ({"k": None} if "T" in options else {})
        if self.mode == "official" and options.get("mode", "official") != "official":
            settings["fallback"] = "swap"
        return type(self)(self.classifier, self.engine, **(settings | self.classifier_settings() | options))

    def rekeyed(self, key: int | bytes | None = None) -> Self:
        """This fence, with the interval that it was fitted to, and other noise. key: None draws a fresh one."""
        other = self.variant(key=key)
        other.interval_, other.search_, other.calibration_ = self.interval_, self.search_, self.calibration_
        return other

    # ------------------------------------------------------------------ images -> samples

    def classify(self, images: Images) -> torch.Tensor:
        """Logits of the bare classifier, asked as the fence asks it: for comparison only, they are unprotected."""
        self._classify.check_mode()
        return self._classify(self.engine.place(images))

    def sample(self, images: Images, *, progress: bool = False) -> Samples:
        """Classify `images` and all n reconstructions of each: what every scenario then selects from.

        Useful for evaluating several settings on the same draws; `forward` is `answer(sample(images)).logits`.
        """
        return Samples.concatenate(list(self._windows(images, early=False, progress=progress)))

    def _windows(self, images: Images, *, early: bool, progress: bool) -> Any:
        placed = self.engine.place(images)
        self._classify.check_mode()
        window = max(_WINDOW, min(8 * self.engine.batch, _LOGITS // (self.n * self.classes)))
        with tqdm(total=len(placed), unit="image", desc="fence", disable=not progress) as bar:
            for start in range(0, len(placed), window):
                yield self._sample_window(placed[start : start + window], early, bar)

    def _sample_window(self, images: torch.Tensor, early: bool, bar: tqdm[Any]) -> Samples:
        sampler = self.engine.sampler(self.T, self.k, self.mode)
        reconstruct = partial(
            self.engine.reconstruct_items, sampler, images, hashes=self.engine.hashes(self.key, images)
        )
        return (self._sample_early if early else self._sample_all)(images, reconstruct, bar)

    def _sample_all(self, images: torch.Tensor, reconstruct: Any, bar: tqdm[Any]) -> Samples:
        index = np.repeat(np.arange(len(images), dtype=np.int32), self.n)
        draw = np.tile(np.arange(self.n, dtype=np.int32), len(images))

        def pieces() -> Iterator[
            torch.Tensor
        ]:  # originals and draws together, so that the classifier's batches are full
            yield images
            for start in range(0, len(index), self.engine.batch):
                end = min(start + self.engine.batch, len(index))
                yield reconstruct(index[start:end], draw[start:end])
                bar.update(end // self.n - start // self.n)

        answers = [(logits, *self.engine.phi(logits, self.mode)) for logits in self._classify.stream(pieces())]
        logits = torch.cat([answer[0] for answer in answers])
        values, classes = (np.concatenate([answer[i] for answer in answers]) for i in (1, 2))
        count, shape = len(images), (len(images), self.n)
        return Samples(
            logits[:count],
            logits[count:].reshape(*shape, -1),
            values[count:].reshape(shape),
            classes[count:].reshape(shape),
            classes[:count],
            values[:count],
        )

    def _sample_early(self, images: torch.Tensor, reconstruct: Any, bar: tqdm[Any]) -> Samples:
        original = self._classify(images)
        phi_original, labels = self.engine.phi(original, self.mode)
        scheduler = _core.Draws(self.n, labels, early=True, interval=self._interval())
        draws = original.new_zeros(len(images), self.n, original.shape[1])
        draw_phi = np.full((len(images), self.n), np.nan)
        predicted = np.full((len(images), self.n), -1, np.int32)
        while not scheduler.done:
            index, draw = scheduler.next(self.engine.batch)
            logits = self._classify(reconstruct(index, draw))
            values, classes = self.engine.phi(logits, self.mode)
            scheduler.submit(index, draw, values, classes)
            draw_phi[index, draw], predicted[index, draw] = values, classes
            draws[torch.from_numpy(index).long(), torch.from_numpy(draw).long()] = logits
        bar.update(len(images))
        return Samples(original, draws, draw_phi, predicted, labels, phi_original)

    # ------------------------------------------------------------------ samples -> answers

    def answer(self, samples: Samples) -> Answer:
        """Select, or average, as the fence is set up. Raises RuntimeError before `fit` where that is needed."""
        if self.aggregate is not None:
            none = np.full(len(samples), -1)
            return Answer(average(samples.draws, self.aggregate), none.astype(np.int32), none.astype(np.int8))
        draw, outcome = self._select(samples)
        logits = samples.draws[torch.arange(len(draw)), torch.from_numpy(np.minimum(draw, self.n - 1)).long()]
        if self.fallback == "original":
            draw = np.where(outcome == FALLBACK, np.int32(self.n), draw)
            logits[torch.from_numpy(draw == self.n)] = samples.original[torch.from_numpy(draw == self.n)]
        else:
            rows = np.flatnonzero(outcome == FALLBACK)
            if len(rows) and self.fallback == "raise":
                raise NoAgreementError(rows.tolist())
            if len(rows):
                labels = torch.from_numpy(samples.labels[rows]).long().to(logits.device)
                logits[torch.from_numpy(rows)] = swap_label(logits[torch.from_numpy(rows)], labels)
        return Answer(logits, draw, outcome)

    def _select(self, samples: Samples) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Draw and outcome; in mode "official" the original is candidate n, and being chosen counts as FALLBACK."""
        interval = self._interval()
        values, classes = samples.phi, samples.predicted
        if self.mode == "official":
            values = np.column_stack([values, samples.phi_original])
            classes = np.column_stack([classes, samples.labels])
        # A draw that early mode left out comes after one that is inside, so any stand-in that disagrees will do.
        missing, others = np.isnan(values), samples.labels[:, None] + 1
        draw, outcome = select(
            np.where(missing, 0.0, values), np.where(missing, others, classes), samples.labels, interval
        )
        return draw, np.where(draw == self.n, np.int8(FALLBACK), outcome)

    def _interval(self) -> tuple[float, float] | None:
        if self.interval_ is None and self.needs_fit:
            raise RuntimeError(f"scenario {self.scenario} needs an interval: call fit(members, nonmembers) first")
        return self.interval_

    @property
    def needs_fit(self) -> bool:
        """Whether this setting selects by an interval that `fit` must find."""
        return self.aggregate is None and (self.scenario != 3 or self.mode == "official")

    def forward(self, images: Images) -> torch.Tensor:
        """Logits (B, classes) of images (B, C, H, W). Raises RuntimeError when `fit` is still to be called."""
        return torch.cat([answer.logits for _, answer in self._answers(images, progress=False)])

    def explain(self, images: Images, *, progress: bool = False) -> list[Explanation]:
        """How each image is answered: a record an image, from the same computation as `forward`."""
        return [
            record
            for samples, answer in self._answers(images, progress=progress)
            for record in explanations(samples, answer, self.mode)
        ]

    def _answers(self, images: Images, *, progress: bool) -> Any:
        if self.aggregate is None:
            self._interval()  # complain before the work, not after
        first = 0
        for samples in self._windows(images, early=self.draws == "early", progress=progress):
            try:
                answer = self.answer(samples)
            except NoAgreementError as error:
                raise NoAgreementError([first + row for row in error.images]) from None
            first += len(samples)
            self._count(samples, answer)
            yield samples, answer

    def _count(self, samples: Samples, answer: Answer) -> None:
        changed = answer.logits.argmax(1).cpu().numpy() != samples.labels
        with self._lock:
            self.counts["images"] += len(samples)
            self.counts["draws"] += int(samples.used.sum())
            self.counts["labels_changed"] += int(changed.sum())
            for code, name in OUTCOMES.items():
                self.counts[name] += int((answer.outcome == code).sum())

    # ------------------------------------------------------------------ calibration

    def fit(
        self, members: Images, nonmembers: Images | None = None, labels: Any = None, *, progress: bool = False
    ) -> Self:
        """Find the interval of phi. Scenario 1 needs both groups, 2 the members; 3 needs nothing and changes nothing.

        members: images that the classifier was trained on; nonmembers: images that it was not. Use other images than
        those you evaluate on. labels: true classes of the members, then of the non-members; they are never used to
        fit, only for the accuracies in `calibration_`.
        Sets `interval_`, `calibration_` (sizes, agreement, accuracies) and in scenario 1 `search_` (every pair tried).
        Raises ValueError when a group that the scenario needs is missing, or when no draw of a group agrees.
        """
        if not self.needs_fit:
            return self
        if nonmembers is None and (self.scenario == 1 or self.scenario == 3):
            raise ValueError(f"nonmembers: scenario {self.scenario} (mode {self.mode!r}) needs non-members too")
        groups = [members] if nonmembers is None else [members, nonmembers]
        names = ("members", "nonmembers")
        for name, group in zip(names, groups, strict=False):
            self.engine.place(group, name)
        samples = [self.sample(group, progress=progress) for group in groups]
        return self.fit_samples(samples[0], samples[1] if len(samples) == 2 else None, labels)

    def fit_samples(self, members: Samples, nonmembers: Samples | None = None, labels: Any = None) -> Self:
        """`fit` from what `sample` returned, for calibrating several settings on the same draws."""
        if not self.needs_fit:
            return self
        groups = [("members", members)] + ([] if nonmembers is None else [("nonmembers", nonmembers)])
        for name, group in groups:
            if not group.match.any():
                raise ValueError(f"{name}: no reconstruction keeps its image's label; use a smaller T")
        calibration = _calibration(groups, labels)
        inside = members.phi[members.match]
        search = None
        if self.scenario == 2:
            interval = (float(inside.min()), float(inside.mean()))
        elif nonmembers is None:
            raise ValueError(f"nonmembers: scenario {self.scenario} needs them")
        elif self.scenario == 3:
            interval = (float(nonmembers.phi[nonmembers.match].min()), float(inside.max()))
        else:
            both = Samples.concatenate([members, nonmembers])
            search = search_interval(
                both.phi,
                both.match,
                np.arange(len(both)) < len(members),
                mode=self.mode,
                phi_original=both.phi_original if self.mode == "official" else None,
            )
            interval = (search["low"], search["high"])
        self.interval_, self.search_, self.calibration_ = interval, search, calibration
        return self

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fence without its classifier: settings, key, interval and the diffusion model, in one file.

        The file holds the secret key: whoever has it can replay the noise. Written whole or not at all.
        """
        config = {
            "diffusion": self.diffusion.config.to_dict(),
            "settings": self.settings()
            | self.classifier_settings()
            | {"key": self.key.hex(), "precision": self.engine.options["precision"]},
            "interval": self.interval_,
            "calibration": self.calibration_,
            "classes": self.classes,
        }
        save_tensors(path, _FILE_KIND, self.diffusion.tensors(), config)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        classifier: torch.nn.Module,
        *,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        batch: int | None = None,
    ) -> Self:
        """The fence that `save` wrote, around `classifier`; the same key, so the same answers.

        precision: None for the one that the saved fence asked for, or the device's own where it asked for none; another
        one rounds otherwise, so some answers differ a little.
        """
        tensors, config = load_tensors(path, _FILE_KIND)
        settings = dict(config["settings"])
        settings["key"] = bytes.fromhex(settings["key"])
        if precision is not None:
            settings["precision"] = precision
        diffusion = DiffusionModel.from_tensors(tensors, config["diffusion"])
        fence = cls(classifier, diffusion, device=device, threads=threads, batch=batch, **settings)
        if fence.classes != config["classes"]:
            raise ValueError(
                f"classifier: has {fence.classes} classes, the fence in {path} was made for {config['classes']}"
            )
        fence.interval_ = None if config["interval"] is None else tuple(config["interval"])
        fence.calibration_ = config["calibration"]
        return fence

    def extra_repr(self) -> str:
        parts = [f"scenario={self.scenario}", f"n={self.n}", f"T={self.T}", f"k={self.k}", f"mode={self.mode!r}"]
        if self.aggregate is not None:
            parts.append(f"aggregate={self.aggregate!r}")
        if self.interval_ is not None:
            parts.append(f"interval=({self.interval_[0]:.3f}, {self.interval_[1]:.3f})")
        return ", ".join(parts)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if isinstance(value, bool) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")


def _calibration(groups: list[tuple[str, Samples]], labels: Any) -> dict[str, Any]:
    """Sizes, agreement and (with true labels) accuracies of the groups that an interval was fitted on."""
    truth = None if labels is None else np.asarray(labels).reshape(-1)
    total = sum(len(group) for _, group in groups)
    if truth is not None and len(truth) != total:
        raise ValueError(f"labels: expected {total} (members, then non-members), got {len(truth)}")
    record: dict[str, Any] = {}
    start = 0
    for name, group in groups:
        facts: dict[str, Any] = {
            "images": len(group),
            "agreement": float(group.match.mean()),
            "without_agreement": int((~group.match.any(1)).sum()),
        }
        if truth is not None:
            facts["accuracy"] = float((group.labels == truth[start : start + len(group)]).mean())
        record[name] = facts
        start += len(group)
    return record
