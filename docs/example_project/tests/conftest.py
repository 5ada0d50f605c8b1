"""What the privacy tests are about: the classifier, its training set, and as many images that it never saw."""

import os

import classifier
import pytest
import torch

Samples = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="session")
def groups() -> tuple[Samples, Samples]:
    images, labels = classifier.load()
    members, nonmembers = classifier.split(len(images))
    return (images[members], labels[members]), (images[nonmembers], labels[nonmembers])


@pytest.fixture(scope="session")
def members(groups: tuple[Samples, Samples]) -> Samples:
    return groups[0]


@pytest.fixture(scope="session")
def nonmembers(groups: tuple[Samples, Samples]) -> Samples:
    return groups[1]


@pytest.fixture(scope="session")
def model(members: Samples) -> torch.nn.Module:
    """A real project would load what it ships. OVERFIT=1 trains a model that leaks, to see the tests fail."""
    if os.environ.get("OVERFIT"):
        return classifier.train(*members, epochs=300, weight_decay=0.0)
    return classifier.train(*members)
