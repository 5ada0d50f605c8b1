"""The fence: labels are kept, answers depend on the image and the key alone, and bad input is told apart."""

from __future__ import annotations

import copy
import itertools
import pathlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diffence import Diffence, Engine, NoAgreementError, Samples, selection
from diffence.unets import DDPMConfig, DDPMUNet, save

SHAPE = (1, 8, 8)
SELECTING = list(itertools.product((1, 2, 3), ("paper", "official")))


def make_diffusion(max_t: int | None = None) -> DDPMUNet:
    """A small network whose weights matter: those it starts with would make every prediction nearly zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DDPMUNet(
            DDPMConfig(image=SHAPE, channels=8, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, max_t=max_t)
        )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return net.eval()


def make_classifier(classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(72, classes),
        )
        with torch.no_grad():
            net[-1].weight.mul_(8)
    return net.eval()


@pytest.fixture(scope="module")
def diffusion() -> DDPMUNet:
    return make_diffusion()


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return make_classifier()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def make(diffusion: DDPMUNet, classifier: nn.Module, images: torch.Tensor) -> Callable[..., Diffence]:
    def build(**options: Any) -> Diffence:
        fence = Diffence(classifier, diffusion, **({"n": 6, "T": 60, "key": 7} | options))
        return fence.fit(images[20:30], images[30:])

    return build


def test_defaults_are_the_final_papers(classifier: nn.Module, diffusion: DDPMUNet) -> None:
    fence = Diffence(classifier, diffusion)
    assert (fence.scenario, fence.n, fence.T, fence.k) == (1, 30, 160, 160)
    assert (fence.mode, fence.draws, fence.fallback, fence.aggregate) == ("paper", "full", "swap", None)


@pytest.mark.parametrize(("scenario", "mode"), SELECTING)
@pytest.mark.parametrize("T", [4, 60, 300])
def test_every_label_is_kept(
    make: Callable[..., Diffence], classifier: nn.Module, images: torch.Tensor, scenario: int, mode: str, T: int
) -> None:
    fence = make(scenario=scenario, mode=mode, T=T)
    logits = fence(images)
    assert logits.shape == (40, 4)
    assert torch.equal(logits.argmax(1), classifier(images).argmax(1))
    assert fence.counts["images"] == 40
    assert fence.counts["labels_changed"] == 0
    assert fence.counts["inside"] + fence.counts["nearest"] + fence.counts["fallback"] == 40
    assert fence.counts["draws"] == 40 * 6


def test_the_cases_occur(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    """The tests of this file mean something only if images are answered in all three ways."""
    outcomes = {record.outcome for T in (60, 300) for record in make(T=T).explain(images)}
    assert outcomes == {"inside", "nearest", "fallback"}


@pytest.mark.parametrize(("scenario", "mode"), SELECTING)
def test_early_is_full_to_the_last_bit(
    make: Callable[..., Diffence], images: torch.Tensor, scenario: int, mode: str
) -> None:
    full = make(scenario=scenario, mode=mode)
    early = make(scenario=scenario, mode=mode, draws="early")
    assert torch.equal(full(images), early(images))
    assert early.counts["draws"] < full.counts["draws"]
    for name in ("inside", "nearest", "fallback"):
        assert early.counts[name] == full.counts[name]


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 2}, {"batch": 1}, {"batch": 64}, {"T": 60, "k": 60}])
@pytest.mark.parametrize("draws", ["full", "early"])
def test_threads_and_batches_change_no_bit(
    make: Callable[..., Diffence], images: torch.Tensor, options: dict[str, Any], draws: str
) -> None:
    assert torch.equal(make()(images), make(draws=draws, **options)(images))


@pytest.mark.parametrize("options", [{"scenario": 1}, {"aggregate": "logits"}, {"aggregate": "probabilities"}])
def test_company_and_order_change_no_bit(
    make: Callable[..., Diffence], images: torch.Tensor, options: dict[str, Any]
) -> None:
    fence = make(**options)
    together = fence(images)
    assert torch.equal(together, torch.cat([fence(image[None]) for image in images]))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    assert torch.equal(together[order], fence(images[order]))
    assert torch.equal(together[:7], fence(images[:7]))


def test_uint8_and_float_are_the_same_image(make: Callable[..., Diffence]) -> None:
    levels = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    fence = make()
    expected = fence(levels)
    assert torch.equal(expected, fence(levels.float() / 255))
    assert torch.equal(expected, fence(levels.numpy()))
    assert torch.equal(expected, fence(levels.double().div(255).permute(0, 2, 3, 1).permute(0, 3, 1, 2)))


def test_saved_and_loaded_it_gives_the_same_answers(
    make: Callable[..., Diffence], classifier: nn.Module, images: torch.Tensor, tmp_path: pathlib.Path
) -> None:
    fence = make(mean=[0.5], std=[0.25])
    fence.save(tmp_path / "fence.safetensors")
    loaded = Diffence.load(tmp_path / "fence.safetensors", classifier)
    assert torch.equal(fence(images), loaded(images))
    assert loaded.interval_ == fence.interval_
    assert loaded.calibration_ == fence.calibration_
    with pytest.raises(ValueError, match="5 classes"):
        Diffence.load(tmp_path / "fence.safetensors", make_classifier(5))
    whole = (tmp_path / "fence.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        Diffence.load(tmp_path / "cut.safetensors", classifier)
    save(tmp_path / "ddpm.safetensors", make_diffusion())
    with pytest.raises(ValueError, match="expected a fence"):
        Diffence.load(tmp_path / "ddpm.safetensors", classifier)


def test_another_process_gives_the_same_answers(
    make: Callable[..., Diffence], classifier: nn.Module, images: torch.Tensor, tmp_path: pathlib.Path
) -> None:
    fence = make()
    fence.save(tmp_path / "fence.safetensors")
    torch.save({"images": images, "logits": fence(images)}, tmp_path / "data.pt")
    code = f"""
import sys, torch
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_fence import make_classifier
from diffence import Diffence
data = torch.load({str(tmp_path / "data.pt")!r})
fence = Diffence.load({str(tmp_path / "fence.safetensors")!r}, make_classifier(), threads=1)
assert torch.equal(fence(data["images"]), data["logits"])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_another_key_draws_independent_noise(diffusion: DDPMUNet, images: torch.Tensor) -> None:
    """From T = 1000 a reconstruction is its noise, so independent noise means uncorrelated reconstructions."""
    engine = Engine(diffusion)
    one, two = (engine.reconstruct(images, 4, 999, mode="paper", key=key).flatten(2) for key in (1, 2))

    def correlations(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = (x - x.mean(2, keepdim=True) for x in (a.double(), b.double()))
        return float(((a * b).sum(2) / (a.norm(dim=2) * b.norm(dim=2))).abs().mean())

    assert correlations(one, one) == pytest.approx(1)
    assert correlations(one, two) < 0.2  # 64 pixels: independent noise gives about 0.1
    assert correlations(one[:, :1], one[:, 1:2]) < 0.2
    assert not torch.equal(one, two)


def test_fresh_keys_differ_and_are_kept(classifier: nn.Module, diffusion: DDPMUNet) -> None:
    fences = [Diffence(classifier, diffusion, n=1) for _ in range(2)]
    assert fences[0].key != fences[1].key
    assert Diffence(classifier, diffusion, key=5).key == (5).to_bytes(16, "little")
    for bad, error in ((-1, ValueError), (b"short", ValueError), (1.5, TypeError), (2**128, ValueError)):
        with pytest.raises(error, match="key"):
            Diffence(classifier, diffusion, key=bad)  # type: ignore[arg-type]


# ---- what is shown -----------------------------------------------------------------------------------------------


def test_swap_shows_a_reconstruction_with_two_values_exchanged(
    make: Callable[..., Diffence], images: torch.Tensor
) -> None:
    fence = make(T=300)
    samples = fence.sample(images)
    answer = fence.answer(samples)
    rows = np.flatnonzero(answer.outcome == selection.FALLBACK)
    assert len(rows) > 0
    for row in rows:
        shown, drawn = answer.logits[row], samples.draws[row, answer.draw[row]]
        assert torch.equal(shown.sort().values, drawn.sort().values)
        assert shown.argmax() == samples.labels[row]
        assert not np.isin(shown.numpy(), samples.original[row].numpy()).any()


def test_swap_is_right_for_ties_and_for_labels_that_came_last() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 1.0], [5.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([1, 2, 1, 2])
    swapped = selection.swap_label(logits, labels)
    assert torch.equal(swapped.argmax(1), labels)
    assert swapped[0].tolist() == [1.0, 3.0, 2.0]
    up = np.nextafter(np.float32(5), np.float32(np.inf))
    assert swapped[1].tolist() == [1.0, 5.0, up]
    assert swapped[2].tolist() == [1.0, up, 5.0]
    assert (swapped == swapped.max(1, keepdim=True).values).sum(1).tolist() == [1, 1, 1, 1]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(selection.swap_label(logits.to(dtype), labels).argmax(1), labels)


def test_original_and_raise(make: Callable[..., Diffence], classifier: nn.Module, images: torch.Tensor) -> None:
    fence = make(T=300, fallback="original")
    samples = fence.sample(images)
    answer = fence.answer(samples)
    rows = torch.from_numpy(answer.outcome == selection.FALLBACK)
    assert rows.any()
    assert torch.equal(answer.logits[rows], samples.original[rows])
    assert (answer.draw[rows.numpy()] == fence.n).all()
    with pytest.raises(NoAgreementError, match="fallback='swap'") as caught:
        make(T=300, fallback="raise")(images)
    assert caught.value.images == np.flatnonzero(rows.numpy()).tolist()


def test_averages(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    for kind in ("logits", "probabilities"):
        fence = make(aggregate=kind, T=300)
        draws = fence.sample(images).draws.double()
        expected = draws.mean(1) if kind == "logits" else draws.softmax(2).mean(1).log()
        shown = fence(images)
        torch.testing.assert_close(shown.double(), expected, rtol=1e-5, atol=1e-5)
        labels = fence.classifier(images).argmax(1)
        assert fence.counts["labels_changed"] == int((shown.argmax(1) != labels).sum()) > 0
        assert {record.outcome for record in fence.explain(images)} == {"averaged"}


def test_a_selected_answer_is_the_reconstructions_own_logits(
    make: Callable[..., Diffence], images: torch.Tensor
) -> None:
    fence = make()
    samples = fence.sample(images)
    answer = fence.answer(samples)
    for row in np.flatnonzero(answer.outcome != selection.FALLBACK):
        assert torch.equal(answer.logits[row], samples.draws[row, answer.draw[row]])
    inside = np.flatnonzero(answer.outcome == selection.INSIDE)
    low, high = fence.interval_  # type: ignore[misc]
    assert len(inside) > 0
    for row in inside:
        good = samples.match[row] & (samples.phi[row] >= low) & (samples.phi[row] <= high)
        assert answer.draw[row] == np.flatnonzero(good)[0]


def test_official_rules_on_logits_by_hand(classifier: nn.Module, diffusion: DDPMUNet) -> None:
    """Section 5 of the release: the original is the last candidate, first inside, else nearest to the midpoint."""
    fence = Diffence(classifier, diffusion, n=2, T=4, mode="official", scenario=2, key=0)

    def row(top: int, phi: float) -> list[float]:
        """Logits whose class is `top` with log-odds `phi`."""
        values = [0.0] * 4
        values[top] = phi + np.log(3)
        return values

    draws = torch.tensor(
        [
            [row(0, 1.0), row(0, 2.0)],  # first inside wins
            [row(0, 5.0), row(0, 2.5)],  # the second is inside
            [row(1, 2.0), row(0, 4.0)],  # a disagreeing one never counts; the original is nearer than the second
            [row(1, 2.0), row(1, 2.0)],  # none agrees: the original
            [row(0, 3.5), row(0, 4.5)],  # none inside, the first is nearest
        ]
    )
    original = torch.tensor([row(0, 9.0), row(0, 2.0), row(0, 3.1), row(0, 9.0), row(0, 9.0)])
    values, predicted = selection.phi(draws, "official")
    original_values, labels = selection.phi(original, "official")
    fence.interval_ = (0.5, 3.0)
    answer = fence.answer(Samples(original, draws, values, predicted, labels, original_values))
    assert answer.draw.tolist() == [0, 1, 2, 2, 0]
    assert answer.outcome.tolist() == [0, 0, selection.FALLBACK, selection.FALLBACK, selection.NEAREST]
    assert torch.equal(answer.logits[2], original[2])
    assert torch.equal(answer.logits[3], original[3])


@pytest.mark.parametrize(("scenario", "mode"), [(1, "paper"), (1, "official"), (2, "paper"), (3, "official")])
def test_fitted_intervals(
    classifier: nn.Module, diffusion: DDPMUNet, images: torch.Tensor, scenario: int, mode: str
) -> None:
    fence = Diffence(classifier, diffusion, n=6, T=20, key=7, scenario=scenario, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="call fit"):
        fence(images)
    labels = np.zeros(20, int)
    fence.fit(images[:10], images[10:20], labels)
    members, nonmembers = fence.sample(images[:10]), fence.sample(images[10:20])
    inside, outside = members.phi[members.match], nonmembers.phi[nonmembers.match]
    assert fence.interval_ is not None
    if scenario == 2:
        assert fence.interval_ == (inside.min(), inside.mean())
    elif scenario == 3:
        assert fence.interval_ == (outside.min(), inside.max())
    else:
        assert fence.search_ is not None
        assert fence.search_["divergence"] == fence.search_["divergences"].min()
    assert fence.calibration_ is not None
    assert fence.calibration_["members"]["images"] == 10
    assert fence.calibration_["members"]["accuracy"] == (members.labels == 0).mean()


@pytest.mark.parametrize("options", [{"scenario": 3}, {"aggregate": "logits"}, {"aggregate": "probabilities"}])
def test_settings_without_an_interval_ignore_fit(
    classifier: nn.Module, diffusion: DDPMUNet, images: torch.Tensor, options: dict[str, Any]
) -> None:
    fence = Diffence(classifier, diffusion, n=2, T=20, key=7, **options)
    expected = fence(images)
    samples = fence.sample(images)
    assert fence.fit(images[:5], images[5:10]).interval_ is None
    assert fence.fit_samples(samples, samples).interval_ is None
    assert torch.equal(fence(images), expected)


def test_a_variant_shares_the_engine_and_the_key(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    fence = make()
    twin = fence.variant(scenario=3, draws="early")
    assert twin.engine is fence.engine
    assert (twin.n, twin.T, twin.k, twin.key) == (6, 60, 60, fence.key)
    assert torch.equal(twin(images), make(scenario=3)(images))
    assert fence.variant(T=40).k == 40
    official = make(mode="official")
    assert official.variant(mode="paper").fallback == "swap"
    with pytest.raises(TypeError, match="unexpected keyword"):
        fence.variant(stride=4)


def test_rekeyed_is_the_same_fence_with_other_noise(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    fence = make(scenario=1, n=4).fit(images[:8], images[8:16])
    other = fence.rekeyed(key=99)
    assert other.interval_ == fence.interval_
    assert other.settings() == fence.settings()
    assert not torch.equal(other(images[:4]), fence(images[:4]))
    assert torch.equal(other.rekeyed(fence.key)(images[:4]), fence(images[:4]))
    assert fence.rekeyed().key != fence.rekeyed().key


def test_explanations_agree_with_forward(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    for draws in ("full", "early"):
        fence = make(draws=draws)
        records = fence.explain(images)
        logits = fence(images)
        assert [record.answer for record in records] == logits.argmax(1).tolist()
        assert [record.phi for record in records] == selection.phi(logits)[0].tolist()
        assert sum(record.draws_used for record in records) * 2 == fence.counts["draws"]
        for record in records:
            assert record.draws_used == np.isfinite(record.phi_draws).sum()
            if record.outcome != "fallback":
                assert record.phi_draws[record.draw] == record.phi
                assert record.agreeing > 0


# ---- a module like any other -------------------------------------------------------------------------------------


def test_it_is_a_module_that_stays_in_evaluation_mode(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    fence = make()
    expected = fence(images)
    whole = nn.Sequential(fence).train()
    assert not any(part.training for part in fence.modules())
    assert torch.equal(whole(images), expected)
    assert not expected.requires_grad
    assert {name.split(".")[0] for name in fence.state_dict()} == {"classifier"}
    for twin in (copy.deepcopy(fence), pickle.loads(pickle.dumps(fence))):
        assert torch.equal(twin(images), expected)


def test_the_classifiers_dtype_is_the_answers(diffusion: DDPMUNet, images: torch.Tensor) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        fence = Diffence(make_classifier().to(dtype), diffusion, n=2, T=20, scenario=3)
        assert fence(images[:3]).dtype == dtype


def test_two_threads_at_once(make: Callable[..., Diffence], images: torch.Tensor) -> None:
    fence = make()
    expected = fence(images)
    answers: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: answers.append(fence(images))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert all(torch.equal(answer, expected) for answer in answers)
    assert fence.counts["images"] == 4 * 40


# ---- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"images: expected four dimensions"),
        (lambda x: x[:0], r"images: the batch is empty"),
        (lambda x: x.expand(-1, 3, -1, -1), r"images: expected \(B, 1, 8, 8\), got \(40, 3, 8, 8\)"),
        (lambda x: x[..., :7], r"images: expected \(B, 1, 8, 8\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"use permute\(0, 3, 1, 2\)"),
        (lambda x: x * 255, r"divide by 255"),
        (lambda x: x * 2 - 1, r"pass mean= and std="),
        (lambda x: x.index_fill(0, torch.tensor([3]), float("nan")), r"image 3 holds NaN or infinity"),
        (lambda x: x.index_fill(0, torch.tensor([0]), float("inf")), r"image 0 holds NaN or infinity"),
        (lambda x: x.long(), r"images: expected uint8 .* got dtype int64"),
    ],
)
def test_bad_images(make: Callable[..., Diffence], images: torch.Tensor, change: Any, message: str) -> None:
    fence = make(scenario=3)
    with pytest.raises((ValueError, TypeError), match=message):
        fence(change(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": 4}, "scenario: expected one of 1, 2, 3, got 4"),
        ({"n": 0}, "n: expected"),
        ({"T": 0}, "T: expected 1..1000"),
        ({"T": 1001}, "T: expected 1..1000"),
        ({"T": 1000, "mode": "official"}, "T"),
        ({"k": 0}, "k"),
        ({"k": 161}, "k"),
        ({"aggregate": "mean"}, "aggregate: expected one of"),
        ({"mode": "release"}, "mode: expected one of"),
        ({"draws": "lazy"}, "draws: expected one of"),
        ({"fallback": "none"}, "fallback: expected one of"),
        ({"aggregate": "logits", "draws": "early"}, "averaging needs all n draws"),
        ({"mode": "official", "fallback": "raise"}, "nothing to raise"),
        ({"mean": [0.5]}, "give both or neither"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, "mean: expected one value or 1"),
        ({"mean": [0.5], "std": [0.0]}, "std: expected finite positive"),
        ({"mean": [125.0], "std": [60.0]}, "divide it by 255"),
        ({"device": "cuda"}, "use device='cpu'"),
        ({"precision": "fp8"}, "precision"),
        ({"threads": 0}, "threads"),
        ({"batch": 0}, "batch"),
        ({"classifier_batch": 0}, "classifier_batch"),
    ],
)
def test_bad_options(classifier: nn.Module, diffusion: DDPMUNet, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        Diffence(classifier, diffusion, **options)


class Returns(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, images: torch.Tensor) -> Any:
        return self.function(images)


def test_the_classifier_is_asked_in_full_batches(
    diffusion: DDPMUNet, classifier: nn.Module, images: torch.Tensor
) -> None:
    asked = []

    def answer(batch: torch.Tensor) -> torch.Tensor:
        asked.append(len(batch))
        return classifier(batch)

    fence = Diffence(Returns(answer), diffusion, n=6, T=60, key=7, scenario=3, batch=5)
    asked.clear()
    samples = fence.sample(images[:7])
    assert asked == [16] * 4  # 7 originals and 42 draws, engine batches of 5
    assert torch.equal(samples.original, fence.classify(images[:7]))
    assert np.array_equal(samples.labels, samples.original.argmax(1).numpy())
    alone = [fence.sample(images[i : i + 1]) for i in range(7)]
    assert torch.equal(samples.draws, Samples.concatenate(alone).draws)


def test_a_classifier_that_fails_is_found_at_once(
    diffusion: DDPMUNet, classifier: nn.Module, images: torch.Tensor
) -> None:
    asked = []

    def answer(batch: torch.Tensor) -> torch.Tensor:
        asked.append(len(batch))
        return classifier(batch) * (float("nan") if len(asked) == 2 else 1)

    fence = Diffence(Returns(answer), diffusion, n=6, T=60, key=7, scenario=3, batch=5)
    asked.clear()
    with pytest.raises(ValueError, match="is nan, expected a finite"):
        fence(images)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (make_classifier().train(), r"call classifier.eval\(\) first"),
        (Returns(lambda x: x), "returned shape"),
        (Returns(lambda x: x.flatten(1)[:, :1]), "at least 2 classes"),
        (Returns(lambda x: (x.flatten(1), None)), "returned tuple"),
        (Returns(lambda x: x.flatten(1).softmax(1)), "outputs are probabilities"),
        (Returns(lambda x: x.flatten(1) * float("nan")), "NaN or infinity"),
        (Returns(lambda x: nn.functional.conv2d(x, torch.ones(1, 3, 3, 3))), r"shape \(1, 8, 8\)"),
        (lambda x: x, "expected a torch.nn.Module"),
    ],
)
def test_bad_classifiers(diffusion: DDPMUNet, classifier: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Diffence(classifier, diffusion)


def test_a_classifier_set_to_training_later(diffusion: DDPMUNet, images: torch.Tensor) -> None:
    classifier = make_classifier()
    fence = Diffence(classifier, diffusion, n=1, T=4, scenario=3)
    classifier.train()
    with pytest.raises(ValueError, match="training mode"):
        fence(images)


def test_calibration_needs_its_groups(classifier: nn.Module, diffusion: DDPMUNet, images: torch.Tensor) -> None:
    fence = Diffence(classifier, diffusion, n=2, T=4)
    with pytest.raises(ValueError, match="nonmembers: scenario 1"):
        fence.fit(images[:5])
    with pytest.raises(ValueError, match="members: the batch is empty"):
        fence.fit(images[:0], images[:5])
    with pytest.raises(ValueError, match="labels: expected 10"):
        fence.fit(images[:5], images[5:10], labels=[0] * 9)
    assert fence.interval_ is None


def test_a_fence_refuses_noise_levels_that_were_not_trained(classifier: nn.Module) -> None:
    Diffence(classifier, make_diffusion(max_t=40), T=40)
    with pytest.raises(ValueError, match=r"T: expected 1..40"):
        Diffence(classifier, make_diffusion(max_t=40), T=41)


def test_missing_and_foreign_checkpoints(classifier: nn.Module, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        Diffence(classifier, tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.safetensors"):
        Diffence(classifier, tmp_path / "text.safetensors")
    other = DDPMUNet(DDPMConfig(image=(3, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4))
    save(tmp_path / "other.safetensors", other)
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 8\)"):
        Diffence(classifier, tmp_path / "other.safetensors")
