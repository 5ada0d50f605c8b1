"""The neural-network attack of the paper."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffence import metrics
from diffence.attacks.base import Attack, Family, Outputs
from diffence.progress import tqdm

__all__ = ["NN"]

BATCH = 64  # of each group, at most

Selection = Literal["held-out", "last", "oracle"]
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Network(nn.Module):
    """Three branches (probabilities, one-hot label, loss), joined -> (n,) log odds of being a member."""

    def __init__(self, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.probabilities = _layers(classes, 1024, 512, 64)
        self.label = _layers(classes, 128, 64)
        self.loss = _layers(1, classes, 64)
        self.joined = _layers(192, 256, 128, 64)
        self.last = _linear(64, 1)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, 0.01, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, probabilities: torch.Tensor, label: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        branches = [self.probabilities(probabilities), self.label(label), self.loss(loss)]
        output: torch.Tensor = self.last(self.joined(torch.cat(branches, dim=1)))
        return output[:, 0]


def _linear(inputs: int, outputs: int) -> nn.Module:
    # skip_init leaves the global random state alone, which the ordinary constructor draws from.
    layer: nn.Module = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return layer


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [_linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _inputs(outputs: Outputs) -> Inputs:
    labels = outputs.true_labels
    loss = -outputs.of_label(outputs.log_p())
    one_hot = np.eye(outputs.classes, dtype=np.float32)[labels]
    return (
        torch.from_numpy(outputs.probabilities.astype(np.float32)),
        torch.from_numpy(one_hot),
        torch.from_numpy(loss.astype(np.float32))[:, None],
    )


def _stream(size: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Endless batches of indices below `size`: one shuffled pass after the other, without a gap between them."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(size, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _split(known: tuple[Inputs, Inputs], generator: torch.Generator) -> tuple[tuple[Inputs, Inputs], ...]:
    """A random fifth of each group, and the rest."""

    def parts(group: Inputs) -> tuple[Inputs, Inputs]:
        order = torch.randperm(len(group[0]), generator=generator)
        fifth = len(order) // 5
        probabilities, label, loss = ((column[order[:fifth]], column[order[fifth:]]) for column in group)
        return (probabilities[0], label[0], loss[0]), (probabilities[1], label[1], loss[1])

    members, nonmembers = (parts(group) for group in known)
    return (members[0], nonmembers[0]), (members[1], nonmembers[1])


@torch.no_grad()
def _evaluate(network: _Network, inputs: Inputs) -> NDArray[np.float64]:
    parts = zip(*(torch.split(column, 4096) for column in inputs), strict=True)
    return torch.cat([network(*part) for part in parts]).double().numpy()


@dataclass(eq=False)
class NN(Attack):
    """A network with three branches on the probabilities, the one-hot true label and the loss. Needs labels.

    After Nasr, Shokri and Houmansadr, CCS 2018, as HAMP and Diffence build it: C-1024-512-64, C-128-64 and 1-C-64
    joined to 192-256-128-64-1, ReLU, sigmoid; weights normal with deviation 0.01, biases 0; mean squared error to 1 for
    members and 0 for others; Adam, 5e-4, times 0.1 after epoch 100; shuffled batches of 64 + 64, or as many as the
    larger group has. The loss -log p_y has p_y clamped at 1e-30. score = the output before the sigmoid, after which
    float32 makes ties of sure samples. The threshold is calibrated, on the held-out samples where there are any, else
    on all known ones; the release's, an output of 0.5, calls everybody or nobody a member where an early epoch is kept.

    selection: which epoch's network is kept. "held-out": the one with the largest AUC on a fifth of the known samples,
    which is not trained on. "last": the last, trained on all of them. "oracle": the one with the largest AUC on the
    evaluated targets, as the paper says; optimistic, so `fit` must be given the targets, and the name tells.
    The same seed, torch and number of threads give the same network; global seeds play no part. epoch_: the epoch kept,
    counted from 1.
    """

    seed: int
    selection: Selection = "held-out"
    epochs: int = 200
    progress: bool = False
    family: ClassVar[Family] = "trained"

    def __post_init__(self) -> None:
        if self.selection not in get_args(Selection):
            raise ValueError(f"selection: expected one of {get_args(Selection)}, got {self.selection!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, got {self.epochs}")

    @property
    def name(self) -> str:
        return "nn (oracle epoch)" if self.sees_targets else "nn"

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def sees_targets(self) -> bool:
        return self.selection == "oracle"

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        if self.selection == "held-out":
            for group, outputs in (("members", members), ("nonmembers", nonmembers)):
                if len(outputs) < 5:
                    raise ValueError(f"{group}: {self.name} holds out a fifth, expected 5 or more; got {len(outputs)}")
        # A caller's no_grad or inference_mode would forbid the training.
        with torch.inference_mode(False), torch.enable_grad():
            generator = torch.Generator().manual_seed(self.seed)
            known = (_inputs(members), _inputs(nonmembers))
            judges = None if targets is None else (_inputs(targets[0]), _inputs(targets[1]))
            if self.selection == "held-out":
                judges, known = _split(known, generator)
            network = _Network(members.classes, generator)
            epoch = self._train(network, known, judges, generator)
        fitted_on = judges if self.selection == "held-out" and judges is not None else known
        self.threshold_ = metrics.calibrate_threshold(*(_evaluate(network, group) for group in fitted_on))
        self.network_, self.epoch_ = network, epoch

    def _train(
        self,
        network: _Network,
        known: tuple[Inputs, Inputs],
        judges: tuple[Inputs, Inputs] | None,
        generator: torch.Generator,
    ) -> int:
        """Train `network`; -> the epoch whose weights it has in the end: the last, or the best by the judges' AUC."""
        sizes = [len(group[0]) for group in known]
        batch_size = min(BATCH, max(sizes))
        streams = [_stream(size, batch_size, generator) for size in sizes]
        truth = torch.tensor([1.0] * batch_size + [0.0] * batch_size, dtype=torch.float32)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, fused=True)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100], gamma=0.1)
        best, kept, weights = -1.0, self.epochs, None
        with tqdm(range(1, self.epochs + 1), "nn attack", disable=not self.progress, leave=False) as bar:
            for epoch in bar:
                for _ in range(math.ceil(max(sizes) / batch_size)):
                    ours, theirs = (next(stream) for stream in streams)
                    batch = [torch.cat([a[ours], b[theirs]]) for a, b in zip(*known, strict=True)]
                    loss = nn.functional.mse_loss(network(*batch).sigmoid(), truth)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                schedule.step()
                if judges is not None:
                    auc = metrics.auc(*(_evaluate(network, group) for group in judges))
                    bar.set_postfix(auc=f"{auc:.3f}", refresh=False)
                    if auc >= best:  # of equals the later, which has learned more
                        best, kept, weights = auc, epoch, copy.deepcopy(network.state_dict())
        if weights is not None:
            network.load_state_dict(weights)
        return kept

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        if not hasattr(self, "network_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return _evaluate(self.network_, _inputs(outputs))
