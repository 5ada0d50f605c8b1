"""Data sets and their splits: `load` reads images, `split` says who is a member."""

from diffence.data.dataset import Dataset, concatenate, normalisation
from diffence.data.sources import load
from diffence.data.splits import Splits, repeats, split

__all__ = ["Dataset", "Splits", "concatenate", "load", "normalisation", "repeats", "split"]
