"""`diffence audit`: model files, files of answers, what it writes, and its exit status."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from diffence import classifiers
from diffence.auditing import load_model, read_answers
from diffence.auditing.targets import as_target
from diffence.cli import main


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(36, 3)
        torch.nn.init.normal_(self.layer.weight, 0, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(images.flatten(1))
        return result


NET = Net().eval()
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(120, 1, 6, 6), dtype=np.uint8)
LOGITS = NET(torch.from_numpy(IMAGES) / 255).detach().double().numpy()
LABELS = np.where(np.arange(120) < 60, LOGITS.argmax(1), RNG.integers(3, size=120))  # the first 60 look learned


@pytest.fixture
def files(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = {name: tmp_path / name for name in ("a.npz", "b.npz", "a_logits.npz", "b_logits.npz", "a.csv", "b.csv")}
    for name, part in (("a", slice(0, 60)), ("b", slice(60, 120))):
        np.savez(paths[f"{name}.npz"], images=IMAGES[part], labels=LABELS[part])
        np.savez(paths[f"{name}_logits.npz"], logits=LOGITS[part], labels=LABELS[part])
        rows = [
            f"{label},{','.join(map(repr, map(float, row)))}"
            for label, row in zip(LABELS[part], LOGITS[part], strict=True)
        ]
        paths[f"{name}.csv"].write_text("label,c0,c1,c2\n" + "\n".join(rows) + "\n")
    example = torch.rand(4, 1, 6, 6)
    paths |= {name: tmp_path / name for name in ("m.pt", "fixed.pt2", "any.pt2", "state.pt", "ours.safetensors")}
    torch.jit.script(NET).save(str(paths["m.pt"]))
    torch.export.save(torch.export.export(NET, (example,)), str(paths["fixed.pt2"]))
    dynamic = torch.export.export(NET, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(dynamic, str(paths["any.pt2"]))
    torch.save(NET.state_dict(), paths["state.pt"])
    ours = classifiers.build("convnet", classes=3, channels=1, image=(6, 6), seed=0)
    classifiers.save(paths["ours.safetensors"], ours, mean=[0.5], std=[0.5])
    return paths


def run(files: dict[str, pathlib.Path], *arguments: Any, members: str = "a.npz", nonmembers: str = "b.npz") -> int:
    given = [str(files.get(str(one), one)) for one in arguments]
    return main(
        [
            "audit",
            "--members",
            str(files[members]),
            "--nonmembers",
            str(files[nonmembers]),
            "--attacks",
            "metric",
            *given,
        ]
    )


@pytest.mark.parametrize("model", ["m.pt", "fixed.pt2", "any.pt2"])
def test_model_files_answer_like_the_model(files: dict[str, pathlib.Path], model: str) -> None:
    loaded, options = load_model(files[model])
    assert options == ({"batch": 4} if model == "fixed.pt2" else {})
    answers = as_target(loaded, (1, 6, 6), **options)(IMAGES[:7])
    np.testing.assert_allclose(answers, LOGITS[:7], rtol=1e-5, atol=1e-5)


def test_answers_are_kept_for_each_model_file(
    files: dict[str, pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(Net):  # the same name, parts and weights, and other code
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = 2 * self.layer(images.flatten(1))
            return result

    Twice.__name__ = "Net"
    other, twice = Net().eval(), Twice().eval()
    twice.load_state_dict(NET.state_dict())
    with torch.no_grad():
        other.layer.bias.add_(1)
    for name, module in (("other", other), ("twice", twice)):
        torch.jit.script(module).save(str(tmp_path / f"{name}.pt"))
        torch.export.save(torch.export.export(module, (torch.rand(4, 1, 6, 6),)), str(tmp_path / f"{name}.pt2"))
    kept, tables = tmp_path / "kept", {}
    models = ("m.pt", "fixed.pt2", "ours.safetensors", "other.pt", "other.pt2", "twice.pt", "twice.pt2")
    for count, model in enumerate(models, 1):
        path = files.get(model, tmp_path / model)
        for _ in range(2):
            assert run(files, "--model", path, "--folder", kept) == 0
            assert len(list(kept.glob("*.safetensors"))) == count
            shown = capsys.readouterr().out
            assert tables.setdefault(model, shown) == shown


def test_ctrl_c_says_how_to_go_on(
    files: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffence.auditing.command.audit", stopped)
    assert run(files, "--model", "m.pt") == 130
    assert capsys.readouterr().err == "diffence audit: interrupted; nothing is half written\n"
    assert run(files, "--model", "m.pt", "--folder", "kept") == 130
    assert capsys.readouterr().err == "diffence audit: interrupted; the same command goes on from kept\n"


def test_images_and_answers_give_the_same_table(
    files: dict[str, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    assert run(files, "--model", "m.pt") == 0
    tables.append(capsys.readouterr().out)
    for kind in ("_logits.npz", ".csv"):
        assert run(files, members=f"a{kind}", nonmembers=f"b{kind}") == 0
        tables.append(capsys.readouterr().out)
    assert "The model leaks who was in its training set" in tables[0]
    rows = [[line for line in table.splitlines() if line.startswith(("loss", "entropy"))] for table in tables]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 2


def test_it_writes_what_it_is_asked_to(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    status = run(
        files, "--model", "m.pt", "--html", tmp_path / "r.html", "--json", tmp_path / "r.json", "--out", tmp_path / "o"
    )
    assert status == 0
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "audit.html",
        "audit.json",
        "results.csv",
        "results.json",
    ]
    assert run(files, "--model", "m.pt", "--baseline", tmp_path / "r.json") == 0


def test_claims_are_the_exit_status(files: dict[str, pathlib.Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, "--model", "m.pt", "--max-auc", 0.6) == 1
    assert "the model leaks" in capsys.readouterr().err
    assert run(files, "--model", "m.pt", "--max-auc", 0.99) == 0
    assert run(files, "--model", "m.pt", "--max-auc", 0.6, members="a.npz", nonmembers="a.npz") == 0
    assert run(files, "--model", "m.pt", "--max-auc", 0.55, "--proven", members="a.npz", nonmembers="a.npz") == 1


def test_a_classifier_of_ours_brings_its_normalisation(files: dict[str, pathlib.Path]) -> None:
    assert load_model(files["ours.safetensors"])[1] == {"mean": [0.5], "std": [0.5]}
    assert run(files, "--model", "ours.safetensors", "--limit", 40) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model: needed to ask about images"),
        (("--model", "gone.pt"), "model: no file gone.pt"),
        (("--model", "state.pt"), "neither TorchScript"),
        (("--model", "a.npz"), "neither TorchScript"),
        (("--model", "m.pt", "--limit", "1"), "--limit: expected at least 2"),
        (("--model", "m.pt", "--proven"), "--proven: says how --max-auc is meant"),
        (("--model", "m.pt", "--mean", "128", "--std", "1"), "divide it by 255"),
        (("--model", "m.pt", "--baseline", "gone.json"), "baseline: no file gone.json"),
        (("--model", "m.pt", "--kind", "probabilities"), "kind: expected probabilities"),
    ],
)
def test_what_is_wrong_is_said(
    files: dict[str, pathlib.Path], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(files, *arguments) == 2
    assert message in capsys.readouterr().err


def test_answers_and_a_model_do_not_go_together(
    files: dict[str, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, "--model", "m.pt", members="a_logits.npz", nonmembers="b_logits.npz") == 2
    assert "holds answers already" in capsys.readouterr().err
    assert run(files, "--model", "m.pt", members="a_logits.npz") == 2
    assert "images of both, or answers of both" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".pt2"])
def test_truncated_files(files: dict[str, pathlib.Path], tmp_path: pathlib.Path, suffix: str) -> None:
    source = {".npz": "a_logits.npz", ".pt": "m.pt", ".pt2": "any.pt2"}[suffix]
    whole = files[source].read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) - 9):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"cut\{suffix}"):
            (read_answers if suffix == ".npz" else load_model)(path)


@pytest.mark.parametrize(
    "text", ["", "label,a,b\n", "label,a,b\n0,1.5\n", "label,a,b\n0,1.5,x\n", "label,a,b\n0.5,1,2\n"]
)
def test_wrong_tables(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"table\.csv"):
        read_answers(path)


def test_the_layout_is_asked_for_where_the_shape_does_not_tell(
    files: dict[str, pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files["four.npz"] = tmp_path / "four.npz"
    np.savez(files["four.npz"], images=IMAGES[:60, :, :4, :4], labels=LABELS[:60])
    assert run(files, "--model", "m.pt", members="four.npz") == 2
    assert "does not tell where the channels are" in capsys.readouterr().err
    assert run(files, "--model", "m.pt", "--layout", "NCHW", members="four.npz", nonmembers="four.npz") == 2
    assert "failed on images of shape (1, 4, 4)" in capsys.readouterr().err


def test_wrong_answers_name_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.npz"
    for arrays, message in (
        ({"scores": LOGITS}, "logits or probabilities"),
        ({"logits": LOGITS, "probabilities": LOGITS}, "logits or probabilities"),
        ({"logits": LOGITS * np.nan, "labels": LABELS}, "finite"),
        ({"logits": LOGITS, "labels": LABELS[:3]}, "labels: expected shape"),
        ({"probabilities": LOGITS, "labels": LABELS}, "expected probabilities"),
        ({"logits": LOGITS.astype(object)}, "allow_pickle"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message) as error:
            read_answers(path)
        assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="kind: expected one of"):
        read_answers(path, "odds")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        read_answers(tmp_path / "gone.csv")
