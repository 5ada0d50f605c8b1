"""Classifiers: networks by name, trained with resume, saved as safetensors with all that running them needs."""

from diffence.classifiers.base import Classifier
from diffence.classifiers.inputs import accuracy, predict
from diffence.classifiers.registry import NETWORKS, build, load, save
from diffence.classifiers.training import train

__all__ = ["NETWORKS", "Classifier", "accuracy", "build", "load", "predict", "save", "train"]
