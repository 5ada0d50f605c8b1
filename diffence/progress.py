"""tqdm's bars, for a terminal or a notebook. Without ipywidgets a notebook's are text, and that needs no warning."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
