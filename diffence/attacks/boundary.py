"""Boundary distance: how far must an image be moved until its label changes?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Outputs, as_array
from diffence.attacks.labels import LabelAttack, LabelOutputs
from diffence.attacks.perturb import checked_count, checked_images, generators
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["Boundary", "BoundaryDistances"]

HALVINGS = 16  # of a step, at most
FINEST = 1e-6  # change of a pixel that float32 still tells apart well enough for a direction

Points = NDArray[np.float32]


@dataclass(frozen=True, eq=False, init=False)
class BoundaryDistances(LabelOutputs):
    """The shown labels of n samples, and the L2 distance at which each changes its label, 0 where it is wrong.

    distances: (n,), not negative, in units of [0, 1] images. queries: (n,) how many images were asked for each, or
    None. The rest: see `LabelOutputs`.
    """

    distances: NDArray[np.float64]
    queries: NDArray[np.int64] | None

    def __init__(
        self,
        shown: ArrayLike | torch.Tensor,
        distances: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
        classes: int | None = None,
        queries: ArrayLike | None = None,
    ) -> None:
        super().__init__(shown, labels, classes)
        values = np.asarray(as_array(distances), dtype=np.float64)
        if values.shape != (len(self),):
            raise ValueError(f"distances: expected shape ({len(self)},), got {values.shape}")
        if not (values >= 0).all():
            raise ValueError("distances: expected numbers from 0, got negative ones or NaN")
        counts = None if queries is None else metrics.checked_labels("queries", queries, len(self))
        object.__setattr__(self, "distances", values)
        object.__setattr__(self, "queries", counts)


@dataclass(eq=False)
class Boundary(LabelAttack):
    """Distance to the nearest label change that HopSkipJump finds; larger = more likely a member. Needs labels.

    Choquette-Choo et al., ICML 2021, and Li and Zhang, CCS 2021, by the L2 attack of Chen, Jordan and Wainwright, IEEE
    S&P 2020, from labels alone. score = the smallest L2 distance, in units of [0, 1] images, between the image and an
    image that was asked and shown another label than the true one: an upper bound of the true distance. 0 for images
    that are wrong as they are. Where no start is found, the diagonal of the cube of images, sqrt(values of an image).

    One image takes, at most, `most_queries(values)` queries:
      1                                 the image itself
      starts                            until one is wrong: its inverse, then uniform noise, random blocks and colours
      S = ceil(1.5 log2(values))        bisection onto the boundary, to values**-1.5 of the distance
      in each iteration t = 1, 2, ...:
        min(evaluations sqrt(t), max_evaluations)    directions tried around the point, for the normal
        1 to 17                         steps along it, each half of the one before, until one is wrong
        S                               bisection
    and 1 more where images are uint8. iterations: how many of these; budget: as many of them as fit into so many
    queries an image (None: all). All images advance together, `batch` queries at a time. Every image has its own random
    numbers, by the seed and its content, so company does not matter.

    The target is asked about float32 images in [0, 1], whatever the dtype of the images: the last steps are far below
    one level of uint8. ValueError where a target shows other labels for them than for the uint8 images.
    """

    seed: int = 0
    iterations: int = 10
    evaluations: int = 100
    max_evaluations: int = 10_000
    starts: int = 100
    budget: int | None = None
    batch: int = 4096
    progress: bool = False
    requires: ClassVar[type[Outputs]] = BoundaryDistances
    name: ClassVar[str] = "boundary"

    def __post_init__(self) -> None:
        checked_count("seed", self.seed, 0)
        checked_count("iterations", self.iterations, 0)
        for name in ("evaluations", "max_evaluations", "starts", "batch"):
            checked_count(name, getattr(self, name))
        if self.budget is not None:
            checked_count("budget", self.budget)

    @property
    def query(self) -> tuple[object, ...]:
        own = (self.seed, self.iterations, self.evaluations, self.max_evaluations, self.starts, self.budget)
        return ("distance to the boundary", *own)

    def most_queries(self, values: int) -> int:
        """The most queries that one float image of so many values takes."""
        return self._costs(values)[self._iterations(values)]

    def _costs(self, values: int) -> list[int]:
        """The most queries after the start and after each iteration."""
        costs = [1 + self.starts + _bisections(values)]
        for iteration in range(1, self.iterations + 1):
            costs.append(costs[-1] + self._evaluations(iteration) + 1 + HALVINGS + _bisections(values))
        return costs

    def _iterations(self, values: int) -> int:
        """How many iterations the budget allows; ValueError where not even the start fits."""
        costs = self._costs(values)
        fitting = len(costs) if self.budget is None else sum(cost <= self.budget for cost in costs)
        if fitting == 0:
            raise ValueError(f"budget: the start alone takes up to {costs[0]} queries, got {self.budget}")
        return fitting - 1

    def _evaluations(self, iteration: int) -> int:
        return min(int(self.evaluations * math.sqrt(iteration)), self.max_evaluations)

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> BoundaryDistances:
        """The distances; labels are needed. See the class for the number of queries."""
        given, values = checked_images(images)
        if labels is None:
            raise ValueError("labels: the true labels are needed here, got None")
        truth = metrics.checked_labels("labels", as_array(labels), len(given))
        iterations = self._iterations(values[0].size)
        shown = target.labels(given)
        if given.dtype == np.uint8:
            other = np.mean(target.labels(values) != shown)
            if other > 0.01:
                raise ValueError(
                    f"target: shows other labels for {other:.0%} of the images as float32 in [0, 1] than as uint8; "
                    "the boundary attack needs a target that takes both"
                )
        queries = np.full(len(given), 1 + (given.dtype == np.uint8))
        distances = np.zeros(len(given))
        right = np.flatnonzero(shown == truth)
        if len(right):
            search = _Search(self, target, values[right], truth[right])
            with tqdm(total=1 + iterations, desc=self.name, disable=not self.progress, leave=False) as bar:
                search.start()
                bar.update()
                for iteration in range(1, iterations + 1):
                    search.advance(iteration)
                    bar.update()
                    bar.set_postfix(median=f"{np.median(search.nearest):.3g}", refresh=False)
            distances[right] = search.nearest
            queries[right] += search.queries
        return BoundaryDistances(shown, distances, truth, queries=queries)

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        assert isinstance(outputs, BoundaryDistances)
        return outputs.distances


class _Search:
    """HopSkipJump of m images (m, C, H, W) that are classified rightly, all together.

    points: (m, values) float32, the wrong image near the boundary from which each goes on. nearest: (m,) the smallest
    distance of a wrong image so far. queries: (m,).
    """

    def __init__(self, options: Boundary, target: Target, images: Points, truth: NDArray[np.int64]) -> None:
        self.options, self.target, self.shape = options, target, images.shape[1:]
        self.images = images.reshape(len(images), -1)
        self.truth = truth
        self.random = generators(images, options.seed, "boundary")
        self.points = self.images.copy()
        self.started = np.zeros(len(images), bool)
        self.values = self.images.shape[1]
        self.nearest = np.full(len(images), math.sqrt(self.values))
        self.queries = np.zeros(len(images), np.int64)

    def wrong(self, rows: NDArray[np.int64], points: Points) -> NDArray[np.bool_]:
        """Whether each of `points` (len(rows), values) is shown another label than the truth of its row."""
        self.queries += np.bincount(rows, minlength=len(self.queries))
        found = np.empty(len(rows), bool)
        for start in range(0, len(rows), self.options.batch):
            part = slice(start, start + self.options.batch)
            shown = self.target.labels(points[part].reshape(-1, *self.shape))
            found[part] = shown != self.truth[rows[part]]
        return found

    def distance(self, rows: NDArray[np.int64], points: Points) -> NDArray[np.float64]:
        """(len(rows),), of the points from the images of their rows."""
        apart = points.astype(np.float64) - self.images[rows]
        return np.asarray(np.sqrt((apart * apart).sum(axis=1)))

    def start(self) -> None:
        """Find an image that is wrong for each, and go to the boundary between them."""
        for trial in range(self.options.starts):
            rows = np.flatnonzero(~self.started)
            if len(rows) == 0:
                break
            points = np.stack([self._candidate(int(row), trial) for row in rows])
            found = self.wrong(rows, points)
            self.points[rows[found]] = points[found]
            self.started[rows[found]] = True
        self.project(np.flatnonzero(self.started))

    def _candidate(self, row: int, trial: int) -> Points:
        """The inverse, then in turn: uniform noise, a 4 x 4 board of random colours, one random colour."""
        if trial == 0:
            return np.asarray(1 - self.images[row])
        rng, (channels, height, width) = self.random[row], self.shape
        if trial % 3 == 1:
            return rng.random(self.values, np.float32)
        side = 4 if trial % 3 == 2 else 1
        board = rng.random((channels, side, side), np.float32)
        return np.ascontiguousarray(
            board[:, np.arange(height) * side // height][..., np.arange(width) * side // width]
        ).reshape(-1)

    def project(self, rows: NDArray[np.int64]) -> None:
        """Bisect between image and point; the point becomes the last wrong one. Records the distance."""
        if len(rows) == 0:
            return
        images, outside = self.images[rows], self.points[rows]
        low, high = np.zeros((len(rows), 1), np.float32), np.ones((len(rows), 1), np.float32)
        best = outside.copy()
        for _ in range(_bisections(self.values)):
            middle = (low + high) / 2
            blend = images + middle * (outside - images)
            found = self.wrong(rows, blend)
            best[found] = blend[found]
            high[found], low[~found] = middle[found], middle[~found]
        self.points[rows] = best
        self.nearest[rows] = np.minimum(self.nearest[rows], self.distance(rows, best))

    def advance(self, iteration: int) -> None:
        """Estimate the boundary's normal at each point, step along it, go back to the boundary."""
        rows = np.flatnonzero(self.started)
        if len(rows) == 0:
            return
        distance = self.distance(rows, self.points[rows])
        radius = np.full(len(rows), 0.1) if iteration == 1 else distance / self.values
        radius = np.maximum(radius, FINEST * math.sqrt(self.values))
        normal = self._normals(rows, radius, self.options._evaluations(iteration))
        step, open_ = distance / math.sqrt(iteration), np.arange(len(rows))
        for _ in range(1 + HALVINGS):
            moved = np.clip(self.points[rows[open_]] + step[open_, None] * normal[open_], 0, 1).astype(np.float32)
            found = self.wrong(rows[open_], moved)
            self.points[rows[open_[found]]] = moved[found]
            open_ = open_[~found]
            if len(open_) == 0:
                break
            step[open_] /= 2
        self.project(rows)

    def _normals(self, rows: NDArray[np.int64], radius: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """(len(rows), values) unit vectors towards wrong labels, from `count` directions each (their equation 16)."""
        normals = np.empty((len(rows), self.values))
        together = max(1, self.options.batch // count)
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            asked = np.empty((len(part), count, self.values), np.float32)
            for place, row in enumerate(part):
                directions = self.random[row].standard_normal((count, self.values), np.float32)
                directions /= np.sqrt((directions * directions).sum(axis=1, keepdims=True))
                asked[place] = np.clip(self.points[row] + np.float32(radius[start + place]) * directions, 0, 1)
            found = self.wrong(np.repeat(part, count), asked.reshape(-1, self.values)).reshape(len(part), count)
            for place, row in enumerate(part):
                # What was asked, not what was drawn: clipping at 0 and 1 and rounding change the direction.
                moved = (asked[place].astype(np.float64) - self.points[row]) / radius[start + place]
                normals[start + place] = _normal(np.where(found[place], 1.0, -1.0), moved)
        return normals


def _normal(signs: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the directions (count, values) weighted by their signs less the mean sign, as a unit vector."""
    mean = signs.mean()
    weights = signs if abs(mean) == 1 else signs - mean
    total: NDArray[np.float64] = (weights[:, None] * directions).sum(axis=0)
    length = math.sqrt(float((total * total).sum()))
    return total / length if length > 0 else total


def _bisections(values: int) -> int:
    return max(1, math.ceil(1.5 * math.log2(values))) if values > 1 else 20
