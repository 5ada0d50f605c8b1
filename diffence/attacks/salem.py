"""The attack of ML-Leaks: a small network on the three largest probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffence import metrics
from diffence.attacks.base import Attack, Family, Outputs
from diffence.progress import tqdm
from diffence.training import one_torch_thread

__all__ = ["Salem"]

TOP = 3
HIDDEN = 64
BATCH = 10


@dataclass(eq=False)
class Salem(Attack):
    """A network on the three largest probabilities in descending order, all where there are fewer. Uses no labels.

    Salem et al., NDSS 2019, first adversary: one hidden layer of 64, ReLU, sigmoid; binary cross-entropy; Adam, 0.01,
    weight decay 1e-6, 50 epochs, batches of 10. score = the output before the sigmoid.

    The paper trains it on one shadow model: give `fit`, or `evaluate`, that model's outputs on its own training samples
    and on others as the known members and non-members. In an audit the known samples of the target serve, which is the
    stronger attacker. The same seed and torch give the same network; global seeds play no part.
    """

    seed: int
    epochs: int = 50
    progress: bool = False
    family: ClassVar[Family] = "trained"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, got {self.epochs}")

    @property
    def name(self) -> str:
        return "salem"

    @property
    def needs_labels(self) -> bool:
        return False

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        inputs = torch.cat([_inputs(members), _inputs(nonmembers)])
        truth = torch.tensor([1.0] * len(members) + [0.0] * len(nonmembers), dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.seed)
        # A caller's no_grad or inference_mode would forbid the training.
        with torch.inference_mode(False), torch.enable_grad(), one_torch_thread():
            network = _network(inputs.shape[1], self.seed)
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-6, fused=True)
            for _ in tqdm(range(self.epochs), "salem attack", disable=not self.progress, leave=False):
                for batch in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
                    logits = network(inputs[batch])[:, 0]
                    loss = nn.functional.binary_cross_entropy_with_logits(logits, truth[batch])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        self.threshold_ = metrics.calibrate_threshold(_scores(network, members), _scores(network, nonmembers))
        self.network_ = network

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        if not hasattr(self, "network_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return _scores(self.network_, outputs)


def _network(inputs: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(inputs, HIDDEN, dtype=torch.float32), nn.ReLU(), nn.Linear(HIDDEN, 1, dtype=torch.float32)
        )


def _inputs(outputs: Outputs) -> torch.Tensor:
    ranked = np.sort(outputs.probabilities, axis=1)[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(ranked[:, :TOP], dtype=np.float32))


@torch.no_grad()
def _scores(network: nn.Sequential, outputs: Outputs) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = network(_inputs(outputs))[:, 0].double().numpy()
    return scores
