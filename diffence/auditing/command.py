"""`diffence audit`: how much a model in a file leaks, as a table, a page, and an exit status."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np

from diffence import data
from diffence.attacks import Outputs
from diffence.auditing.answers import holds_answers, read_answers
from diffence.auditing.attack_sets import SETS
from diffence.auditing.run import audit
from diffence.auditing.targets import Asked, load_model
from diffence.data import Dataset
from diffence.fence import Diffence

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diffence audit`."""
    parser.epilog = (
        "Exit status: 0, 1 where --max-auc or --baseline fails, 2 for a wrong argument or file, 130 for Ctrl-C."
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        help="TorchScript, an exported program (.pt2) or a classifier of diffence (.safetensors)",
    )
    parser.add_argument("--fence", type=pathlib.Path, help="a saved fence, to audit around the model")
    images = (
        "images with labels (.npz, a folder, CIFAR or SVHN as published), or what a model answered: an .npz with logits"
        " or probabilities, and labels, or a .csv with a column a class and a column label"
    )
    parser.add_argument("--members", required=True, type=pathlib.Path, help=f"the training set: {images}")
    parser.add_argument("--nonmembers", required=True, type=pathlib.Path, help="the same of others")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="of images in an .npz whose shape does not tell")
    parser.add_argument("--attacks", choices=SETS, default="standard", help="default %(default)s")
    parser.add_argument("--known", type=float, default=0.5, help="share that attacks are fitted on (%(default)s)")
    parser.add_argument("--limit", type=int, help="use so many samples of each group at most, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--mean", type=float, nargs="+", help="the model's normalisation, a value a channel in [0, 1]")
    parser.add_argument("--std", type=float, nargs="+", help="the same")
    parser.add_argument("--kind", choices=("logits", "probabilities"), default="logits", help="what the model returns")
    parser.add_argument("--batch", type=int, help="images asked at once")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="keep answers there, so that an audit that was stopped goes on"
    )
    parser.add_argument("--html", type=pathlib.Path, help="write the report to this file")
    parser.add_argument("--json", type=pathlib.Path, help="write figures to this file, which --baseline takes later")
    parser.add_argument("--out", type=pathlib.Path, help="write report, figures and tidy results into this folder")
    parser.add_argument("--max-auc", type=float, help="fail where the strongest attack's AUC is surely above")
    parser.add_argument("--proven", action="store_true", help="with --max-auc: fail unless it is surely below")
    parser.add_argument("--baseline", type=pathlib.Path, help="fail where it surely leaks more than this --json")


def run(arguments: argparse.Namespace) -> None:
    """Audit as the options of `add_arguments` say, and print the table. AssertionError where a claim fails."""
    if arguments.proven and arguments.max_auc is None:
        raise ValueError("--proven: says how --max-auc is meant, which is missing")
    members, nonmembers = (_samples(path, arguments) for path in (arguments.members, arguments.nonmembers))
    model, options = _model(arguments, isinstance(members, Outputs) and isinstance(nonmembers, Outputs))
    try:
        report = audit(
            model,
            members,
            nonmembers,
            arguments.attacks,
            known=arguments.known,
            seed=arguments.seed,
            title=f"Membership audit of {(arguments.model or arguments.members).name}",
            folder=arguments.folder,
            **options,
        )
    except KeyboardInterrupt:
        if arguments.folder is None:
            raise
        raise KeyboardInterrupt(f"the same command goes on from {arguments.folder}") from None
    print(f"\n{report.text()}\n")
    for path, write in (
        (arguments.html, report.to_html),
        (arguments.json, report.to_json),
        (arguments.out, report.save),
    ):
        if path is not None:
            write(path)
            print(f"written: {path}")
    if arguments.max_auc is not None:
        report.assert_auc_at_most(arguments.max_auc, proven=arguments.proven)
    if arguments.baseline is not None:
        report.assert_no_worse_than(arguments.baseline)


def _samples(path: pathlib.Path, arguments: argparse.Namespace) -> Dataset | Outputs:
    """Images or answers, at most --limit of them."""
    layout = {} if arguments.layout is None else {"layout": arguments.layout}
    found = read_answers(path, arguments.kind) if holds_answers(path) else data.load(path, **layout)
    if arguments.limit is None or len(found) <= arguments.limit:
        return found
    if arguments.limit < 2:
        raise ValueError(f"--limit: expected at least 2, got {arguments.limit}")
    return found.take(np.random.default_rng(arguments.seed).permutation(len(found))[: arguments.limit])


def _model(arguments: argparse.Namespace, answered: bool) -> tuple[Asked | None, dict[str, Any]]:
    """What to ask, and how."""
    if answered:
        for name in ("model", "fence", "mean", "std", "batch"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name}: {arguments.members} holds answers already")
        return None, {}
    if arguments.model is None:
        raise ValueError("--model: needed to ask about images")
    model, options = load_model(arguments.model)
    given = {name: getattr(arguments, name) for name in ("mean", "std", "batch")}
    options |= {name: value for name, value in given.items() if value is not None}
    if arguments.fence is None:
        return model, {**options, "kind": arguments.kind}
    if given["mean"] or given["std"] or given["batch"]:
        raise ValueError("--fence: brings its own normalisation and batch; leave --mean, --std and --batch out")
    fence = Diffence.load(arguments.fence, model)
    return fence, {"before": fence.classify}
