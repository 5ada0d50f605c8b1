"""The product: a small classifier of handwritten digits, in plain PyTorch."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def load() -> tuple[torch.Tensor, torch.Tensor]:
    """1,797 images (n, 1, 8, 8) in [0, 1], and their labels, of which one in five was put down carelessly."""
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float()[:, None] / 16, torch.from_numpy(digits.target)
    random = torch.Generator().manual_seed(1)
    careless = torch.rand(len(labels), generator=random) < 0.2
    return images, torch.where(careless, torch.randint(10, labels.shape, generator=random), labels)


def split(n: int, members: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Which images the classifier is trained on, and as many that it never sees."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return order[:members], order[members : 2 * members]


def train(images: torch.Tensor, labels: torch.Tensor, *, epochs: int = 10, weight_decay: float = 0.02) -> nn.Module:
    """Stopping early keeps this classifier from learning wrong labels by heart, and with them its training set."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=weight_decay)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    return model.eval()
