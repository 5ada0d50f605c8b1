"""How an audit asks: in pieces, with a bar, and with answers that are kept."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from test_auditing import Bright, pictures, quick
from test_fence import make_classifier, make_diffusion

from diffence.attacks import Augmentation, Loss, RepeatQueries, Timing
from diffence.auditing import AuditReport, audit
from diffence.fence import Diffence


def said(report: AuditReport) -> tuple[Any, ...]:
    return str(report), report.replicates.tolist(), report.warnings, report.notes


def kept_answers(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.safetensors"))


def test_an_audit_that_was_stopped_goes_on(tmp_path: pathlib.Path) -> None:
    """Of 1,000 images in pieces of 300, two are answered before Ctrl-C, the rest after it, and then no more."""
    groups = pictures(500, 1), pictures(500, 2)
    asked: list[int] = []
    stop_at = [7]

    def slow(images: Any) -> torch.Tensor:
        if len(asked) == stop_at[0]:
            raise KeyboardInterrupt
        asked.append(len(images))
        return Bright()(torch.from_numpy(images))

    options: dict[str, Any] = {"model": slow, "batch": 100, "folder": tmp_path, "version": "1"}
    with pytest.raises(KeyboardInterrupt):
        quick(*groups, **options)
    assert (sum(asked), len(kept_answers(tmp_path))) == (700, 2)
    stop_at[0] = -1
    report = quick(*groups, **options)
    assert sum(asked) == 700 + 400
    np.testing.assert_array_equal(report.replicates, quick(*groups, model=Bright().eval(), batch=100).replicates)
    again = quick(*groups, [Loss()], **options)
    assert sum(asked) == 700 + 400
    assert again["loss"].auc == report["loss"].auc
    quick(*groups, **options | {"version": "2"})  # another model, as far as anybody can tell
    assert sum(asked) == 700 + 400 + 1000


def test_a_damaged_answer_is_put_aside_and_asked_for_again(tmp_path: pathlib.Path) -> None:
    groups = pictures(50, 1), pictures(50, 2)
    expected = said(quick(*groups, model=Bright().eval(), folder=tmp_path))
    (file,) = kept_answers(tmp_path)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="damaged, and made again"):
        report = quick(*groups, model=Bright().eval(), folder=tmp_path)
    assert said(report) == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_kept_answers_are_those_of_one_model(tmp_path: pathlib.Path) -> None:
    """Weights, normalisation, a fence's key and interval, and which it is of a fence and its classifier."""
    images = np.random.default_rng(0).integers(256, size=(40, 1, 8, 8), dtype=np.uint8)
    groups = (images[:20], np.arange(20) % 3), (images[20:], np.arange(20) % 3)

    def files_of(model: Any, **options: Any) -> int:
        quick(*groups, [Loss()], model=model, folder=tmp_path, **options)
        return len(kept_answers(tmp_path))

    classifier = make_classifier()
    assert files_of(classifier) == files_of(classifier) == 1
    assert files_of(classifier, mean=0.5, std=0.5) == 2
    with torch.no_grad():
        next(classifier.parameters()).mul_(1.01)
    assert files_of(classifier) == 3
    fence = Diffence(classifier, make_diffusion(), scenario=2, n=3, T=60, key=5).fit(images[:20])
    assert files_of(fence, before=fence.classify) == 5
    assert files_of(fence, before=fence.classify) == 5
    assert files_of(fence.rekeyed(6)) == 6
    fence.interval_ = (0.0, 1.0)
    assert files_of(fence) == 7
    with pytest.raises(ValueError, match="version: a function does not tell which model it asks"):
        files_of(lambda images: classifier(torch.from_numpy(images)))


def test_repeated_answers_and_counts_are_kept_as_they_came(tmp_path: pathlib.Path) -> None:
    """Also those of a target that answers differently each time, of fresh keys, and what a fence counts."""
    images = np.random.default_rng(0).integers(256, size=(40, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 3
    groups = (images[:20], labels[:20]), (images[20:], labels[20:])
    attacks = [RepeatQueries(k=4), RepeatQueries(k=4, fresh=True)]
    reports, counts = [], []
    for key in (5, 5):
        fence = Diffence(make_classifier(), make_diffusion(), scenario=3, n=2, T=300, key=key)
        report = quick(*groups, attacks, model=fence, folder=tmp_path)
        reports.append(said(report))
        counts.append(dict(fence.counts))
    assert reports[0] == reports[1]  # the second time nothing was asked, or the fresh keys would be others
    assert counts[0] == counts[1]
    assert counts[0]["images"] == 40 * 5
    keyed, fresh = (report[attack.name].evaluation.scores[0] for attack in attacks)
    assert not np.array_equal(keyed, fresh)
    random = np.random.default_rng(1)

    def moody(images: Any) -> torch.Tensor:
        return Bright()(torch.from_numpy(images)) + torch.from_numpy(random.normal(size=(len(images), 3)))

    options: dict[str, Any] = {"model": moody, "folder": tmp_path, "version": "1"}
    first, second = (quick(*groups, [RepeatQueries(k=4)], **options) for _ in range(2))
    assert said(first) == said(second)
    assert "differ" in first.notes[0]


def test_what_takes_the_time_is_never_kept(tmp_path: pathlib.Path) -> None:
    groups = pictures(10, 1), pictures(10, 2)
    quick(*groups, [Timing(repeats=1)], model=Bright().eval(), folder=tmp_path)
    assert len(kept_answers(tmp_path)) == 1  # the plain answers


def test_the_bar_knows_how_much_is_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    attacks = [Loss(), RepeatQueries(k=8), Augmentation(d=1)]
    audit(Bright().eval(), pictures(40, 1), pictures(40, 2), attacks, resamples=200)
    shown = capsys.readouterr().err
    assert f"/{80 * (1 + 8 + 5)} " in shown  # at first, and
    assert f"{80 * (1 + 3 + 5)}/{80 * (1 + 3 + 5)} " in shown  # in the end, since equal answers stop the repeats


def test_answers_of_other_versions_are_not_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = pictures(10, 1), pictures(10, 2)
    for count, torch_version in enumerate(("2.13.0", "9.9"), 1):
        monkeypatch.setattr(torch, "__version__", torch_version)
        quick(*groups, [Loss()], model=Bright().eval(), folder=tmp_path)
        assert len(kept_answers(tmp_path)) == count


def test_labels_are_not_taken_for_logits(tmp_path: pathlib.Path) -> None:
    """The second question about an image as it is asks for logits in one audit, and for its label in the other."""
    images = np.random.default_rng(0).integers(256, size=(40, 1, 8, 8), dtype=np.uint8)
    groups = (images[:20], np.arange(20) % 3), (images[20:], np.arange(20) % 3)
    fence = Diffence(make_classifier(), make_diffusion(), scenario=3, n=2, T=60, key=5)
    quick(*groups, [RepeatQueries(k=2)], model=fence, folder=tmp_path)
    kept, plain = (quick(*groups, [Augmentation()], model=fence, **folder) for folder in ({"folder": tmp_path}, {}))
    assert said(kept) == said(plain)
