"""How an audit asks its target: piece by piece, with a bar, and answers kept in a folder where there is one."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffence.attacks import Target
from diffence.attacks.target import Images
from diffence.auditing.targets import Asked, program_of
from diffence.fence import Diffence
from diffence.files import load_intact, made_with, save_tensors

__all__ = ["KeptAnswers", "ask_in_pieces", "identity_of"]

PIECE = 256  # images asked at once, about: what a stopped audit loses
_FILE_KIND = "audit answers"


class KeptAnswers:
    """Answers in a folder, a file for each piece of a question; what is there is not asked again.

    A file is named by a hash of the target's identity, of what was asked, and of how often that was asked before in
    this run: so a target whose answers to the same images differ gives the same ones in the same order. Files are
    written whole or not at all; a damaged one is put aside as `<name>.damaged` with a warning, and made again.
    counts: of a fence (`Diffence.counts`); what a kept answer added to them when it was given, it adds again.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: str, counts: dict[str, int] | None = None) -> None:
        self.folder, self.identity = pathlib.Path(folder), identity
        self._counts = {} if counts is None else counts
        self._asked: Counter[str] = Counter()
        self._rekeyed = 0

    def rekeyed(self) -> KeptAnswers:
        """Those of the target with fresh noise: of the first, the second, ... such one of a run."""
        self._rekeyed += 1
        return KeptAnswers(self.folder, f"{self.identity}, rekeyed {self._rekeyed}")

    def get(self, what: str, images: Images, ask: Callable[[Images], NDArray[Any]]) -> NDArray[Any]:
        """The kept answers of kind `what` to `images`, or those of `ask`, which are then kept."""
        about = f"{self.identity}\n{what} {images.dtype.str} {images.shape}\n".encode()
        question = hashlib.sha256(about + np.ascontiguousarray(images).tobytes()).hexdigest()
        key = {"question": question, "time": self._asked[question]}
        self._asked[question] += 1
        path = self.folder / f"{what}-{question[:32]}-{key['time']}.safetensors"
        found = load_intact(path, _FILE_KIND)
        if found is not None and {name: found[1].get(name) for name in key} == key:
            for name, count in found[1]["counts"].items():
                self._counts[name] += count
            kept: NDArray[Any] = found[0]["answers"].numpy()
            return kept
        before = dict(self._counts)
        answers = ask(images)
        counts = {name: count - before[name] for name, count in self._counts.items()}
        save_tensors(path, _FILE_KIND, {"answers": torch.from_numpy(answers)}, key | {"counts": counts})
        return answers


def ask_in_pieces(target: Target, bar: Any, batch: int, kept: KeptAnswers | None) -> Target:
    """The same target, asked about some 256 images at a time, whole batches of it, and shown in `bar` as it goes."""
    piece = -(-PIECE // batch) * batch

    def by_piece(what: str, ask: Callable[[Images], NDArray[Any]]) -> Callable[[Images], NDArray[Any]]:
        def answer(images: Images) -> NDArray[Any]:
            parts = []
            for start in range(0, max(len(images), 1), piece):
                part = images[start : start + piece]
                parts.append(ask(part) if kept is None else kept.get(what, part, ask))
                bar.update(len(part))
            return np.concatenate(parts)

        return answer

    def rekeyed() -> Target:
        return ask_in_pieces(target.rekeyed(), bar, batch, None if kept is None else kept.rekeyed())

    return Target(
        by_piece("logits", target),
        None if target.ask_labels is None else by_piece("labels", target.labels),
        None if target.rekey is None else rekeyed,
    )


def identity_of(model: Asked, options: dict[str, Any], version: str | None) -> str:
    """What the answers of `model` depend on, as a hash: weights, settings, key, versions of diffence and torch.

    options: how it is asked, see `as_target`. The code of a module's own `forward` is not seen, nor anything of a
    function: `version` stands for it. Raises ValueError where a function has none.
    """
    facts: list[object] = [made_with(), version]
    module: torch.nn.Module | None = None
    owner = getattr(model, "__self__", None)
    if isinstance(model, Diffence):
        engine, module = model.engine, model.classifier
        facts += ["fence", model.settings(), model.classifier_settings(), model.key.hex(), model.interval_]
        facts += [model.diffusion.fingerprint, engine.device.type, engine.precision, engine.isa, engine.direct]
    elif isinstance(owner, Diffence) and model == owner.classify:
        module = owner.classifier
        facts += ["classifier of a fence", owner.classifier_settings()]
    elif isinstance(model, torch.nn.Module):
        module = model
        facts += ["module", options]
    elif version is not None:
        facts += ["function", options, getattr(model, "__qualname__", type(model).__name__)]
    else:
        raise ValueError(
            "version: a function does not tell which model it asks; name it, so that its kept answers are not taken "
            "for those of another one"
        )
    digest = hashlib.sha256()
    for fact in [*facts, *(() if module is None else _facts_of(module))]:
        digest.update(fact if isinstance(fact, bytes) else f"{fact}\n".encode())
    return digest.hexdigest()


def _facts_of(module: torch.nn.Module) -> Iterator[object]:
    """Its parts, its code where it brings that along, and its weights."""
    yield type(module).__qualname__
    yield re.sub(r"0x[0-9a-f]+", "", repr(module))  # without addresses
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) and hasattr(part, "forward"):
            yield part.code
    state: dict[str, Any] = module.state_dict()
    program = program_of(module)
    if program is not None:
        yield program.graph_module.code
        state = {**program.state_dict, **program.constants}
    for name, value in sorted(state.items()):
        if isinstance(value, torch.Tensor):
            yield f"{name} {value.dtype} {tuple(value.shape)}"
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
