"""The CPython boundary: what it takes and what it refuses."""

from __future__ import annotations

import pickle
import re
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffence import _core
from diffence.unets.program import Program

MakeModel = Callable[..., _core.Model]

KEY = bytes(range(16))
SHAPE = (3, 8, 12)
STEPS = 20
ALPHA_BAR = _core.schedule_linear(STEPS, 1e-4, 0.02)


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> _core.Model:
    return make_model()


@pytest.fixture(scope="module")
def engine(model: _core.Model) -> _core.Engine:
    return _core.Engine(model, batch=4, threads=1)


@pytest.fixture(scope="module")
def sampler() -> _core.Sampler:
    return _core.Sampler(ALPHA_BAR, 10, 3, "paper")


def inputs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE)).astype(np.float32), rng.integers(0, STEPS, count).astype(np.int32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)


def raises(kind: type[Exception], *parts: str) -> Any:
    """An error of this kind whose message has all the parts, in this order."""
    return pytest.raises(kind, match=".*".join(re.escape(part) for part in parts))


# ---------------------------------------------------------------- what is taken


def torch_program(program: Program, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The program in torch, float64: an independent reading of the rows of `ops`."""
    names = {kind: name for name, kind in _core.OPS.items()}
    weights = [torch.from_numpy(array).double() for array in program.weights.values()]
    values: list[torch.Tensor] = [x.double(), t]
    for (kind, *ids, w0, w1, attr), epsilon in zip(program.ops.tolist(), program.epsilons.tolist(), strict=True):
        a, b, c = (values[i] if i >= 0 else torch.empty(0) for i in ids)
        weight, bias = (weights[i] if i >= 0 else None for i in (w0, w1))
        match names[kind]:
            case "time_embedding":
                y = weight[a][:, :, None, None]
            case "linear":
                y = torch.nn.functional.linear(a.flatten(1), weight, bias)[:, :, None, None]
            case "silu":
                y = torch.nn.functional.silu(a)
            case "conv":
                y = torch.nn.functional.conv2d(a, weight, bias, stride=attr, padding=weight.shape[2] // 2)
            case "group_norm":
                y = torch.nn.functional.group_norm(a, attr, weight, bias, epsilon)
            case "attention":
                q, k, v = (z.unflatten(1, (attr, -1)).flatten(3).transpose(2, 3) for z in (a, b, c))
                mixed = torch.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, 3) @ v
                y = mixed.transpose(2, 3).reshape(a.shape)
            case "add":
                y = a + b
            case "concat":
                y = torch.cat([a, b], 1)
            case "upsample":
                y = torch.nn.functional.interpolate(a, scale_factor=2.0)
        values.append(y)
    return values[-1]


def test_predict_is_the_program(small_program: Program, make_model: MakeModel, isa: str) -> None:
    assert set(small_program.ops[:, 0].tolist()) == set(_core.OPS.values())
    x, t = inputs(5)
    model = make_model(isa=isa)
    eps = _core.Engine(model, batch=2, threads=1).predict(x, t)
    expected = torch_program(small_program, torch.from_numpy(x), torch.from_numpy(t).long()).numpy()
    assert eps.dtype == np.float32
    np.testing.assert_allclose(eps, expected, rtol=1e-4, atol=1e-4)
    assert model.isa == isa


def test_properties(small_program: Program, model: _core.Model, engine: _core.Engine, sampler: _core.Sampler) -> None:
    assert model.shape == SHAPE
    assert model.time_steps == STEPS
    assert model.parameters == sum(array.size for array in small_program.weights.values())
    assert model.isa in _core.isas()
    assert (engine.model, engine.batch, engine.threads) == (model, 4, 1)
    memory = model.memory(4, 1)
    assert set(memory) == {"weights", "arena", "scratch"}
    assert memory["weights"] > 0
    assert memory["arena"] > 0
    assert sampler.signal == pytest.approx(ALPHA_BAR[9] ** 0.5)
    assert sampler.noise == pytest.approx((1 - ALPHA_BAR[9]) ** 0.5)
    assert [t for t, _, _ in sampler.steps] == [9, 6, 3, 0]


def test_views_equal_contiguous_arrays(engine: _core.Engine, sampler: _core.Sampler) -> None:
    x, t = inputs(6)
    expected = engine.predict(x, t)
    wide = np.zeros((6, 3, 8, 24), np.float32)
    wide[..., ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for view in (
        wide[..., ::2],
        x.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3),
        x.astype(">f4"),
        np.asfortranarray(x),
        read_only,
        unaligned,
        memoryview(x),
        torch.from_numpy(x),
        torch.from_numpy(x).to(memory_format=torch.channels_last),
    ):
        np.testing.assert_array_equal(engine.predict(view, t), expected)
    for steps in (t.astype(np.uint64), t.astype(np.int8), t.tolist(), torch.from_numpy(t), np.repeat(t, 2)[::2]):
        np.testing.assert_array_equal(engine.predict(x, steps), expected)
    images = pictures(4)
    hashes, flipped = _core.content_hashes(KEY, images), images[:, :, ::-1]
    assert _core.content_hashes(KEY, flipped) == _core.content_hashes(KEY, flipped.copy()) != hashes
    items = [0, 1, 2, 3, 0], [0, 0, 0, 0, 1]
    expected = engine.reconstruct(sampler, images, *items, hashes=hashes)
    wide = np.zeros((4, 6, 8, 12), np.float32)
    wide[:, ::2] = images
    again = engine.reconstruct(sampler, wide[:, ::2], *items, hashes=bytearray(hashes))
    np.testing.assert_array_equal(again, expected)
    assert again.flags.c_contiguous
    assert again.flags.owndata


def test_torch_tensors_are_read_in_place(engine: _core.Engine) -> None:
    """No copy: 64 MiB that cross several times leave no trace in the peak of the resident memory."""
    images = torch.zeros((1 << 24) // (3 * 8 * 12), *SHAPE)
    _core.content_hashes(KEY, images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        _core.content_hashes(KEY, images)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_same_bits_for_any_batch_threads_and_company(make_model: MakeModel, sampler: _core.Sampler, isa: str) -> None:
    model = make_model(isa=isa)
    x, t = inputs(7)
    images = pictures(3)
    hashes = _core.content_hashes(KEY, images)
    index, draws = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    first = _core.Engine(model, batch=1, threads=1)
    eps = first.predict(x, t)
    rebuilt = first.reconstruct(sampler, images, index, draws, hashes=hashes)
    assert rebuilt.shape == (12, *SHAPE)
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    order = np.random.default_rng(1).permutation(12)
    for batch, threads in ((1, 2), (3, 1), (5, 3), (64, 2)):
        other = _core.Engine(model, batch=batch, threads=threads)
        np.testing.assert_array_equal(other.predict(x, t), eps)
        np.testing.assert_array_equal(other.predict(x[2:3], t[2:3]), eps[2:3])
        shuffled = other.reconstruct(sampler, images, index[order], draws[order], hashes=hashes)
        np.testing.assert_array_equal(shuffled, rebuilt[order])


def test_reconstruct_is_sampler_normals_and_network(engine: _core.Engine, sampler: _core.Sampler) -> None:
    images, index, draws = pictures(2), np.array([1, 0, 1]), np.array([0, 3, 2])
    hashes = _core.content_hashes(KEY, images)
    size = images[0].size
    normals = np.stack(
        [
            _core.normals(hashes[16 * i : 16 * i + 16], int(j), 0, size).reshape(SHAPE)
            for i, j in zip(index, draws, strict=True)
        ]
    )
    x = np.float32(sampler.signal) * (2 * images[index] - 1) + np.float32(sampler.noise) * normals
    for t, x_scale, eps_scale in sampler.steps:
        x = np.float32(x_scale) * x + np.float32(eps_scale) * engine.predict(x, np.full(3, t))
    expected = np.clip((x + 1) / 2, 0, 1)
    keyed = engine.reconstruct(sampler, images, index, draws, hashes=hashes)
    np.testing.assert_allclose(keyed, expected, atol=1e-5)
    np.testing.assert_array_equal(engine.reconstruct(sampler, images, index, draws, noise=normals), keyed)


def test_draws_select_and_submit_agree() -> None:
    rng = np.random.default_rng(3)
    phi, predicted, labels = rng.normal(size=(9, 5)), rng.integers(0, 2, (9, 5)), rng.integers(0, 2, 9)
    expected = _core.select(phi, predicted, labels, (-0.5, 0.5))
    scheduler = _core.Draws(5, labels.astype(np.uint8), interval=(-0.5, 0.5))
    with raises(ValueError, "wait"):
        scheduler.result()
    while not scheduler.done:
        index, draw = scheduler.next(7)
        assert 1 <= len(index) <= 7
        scheduler.submit(index[::-1], draw[::-1], phi[index, draw][::-1], predicted[index, draw][::-1])
    assert all(len(items) == 0 for items in scheduler.next(1 << 62))
    used, chosen, outcome = scheduler.result()
    assert used.tolist() == [5] * 9
    np.testing.assert_array_equal(chosen, expected[0])
    np.testing.assert_array_equal(outcome, expected[1])
    assert set(outcome.tolist()) <= {_core.INSIDE, _core.NEAREST, _core.FALLBACK}


def test_average_and_phi_take_float32() -> None:
    logits = np.random.default_rng(5).normal(size=(4, 3, 6)).astype(np.float32)
    np.testing.assert_allclose(_core.average(logits), logits.mean(1), atol=1e-6)
    mean = np.log(torch.softmax(torch.from_numpy(logits).double(), 2).mean(1).numpy())
    np.testing.assert_allclose(_core.average(logits.astype(np.float64), "probabilities"), mean, atol=1e-12)
    values, predicted = _core.phi(logits[0])
    np.testing.assert_array_equal(predicted, logits[0].argmax(1))
    others = [np.logaddexp.reduce(np.delete(row.astype(np.float64), row.argmax())) for row in logits[0]]
    np.testing.assert_allclose(values, logits[0].max(1) - np.array(others), atol=1e-12)


def test_search_interval_gives_every_pair() -> None:
    rng = np.random.default_rng(6)
    phi, member = rng.normal(size=(40, 4)), np.arange(40) < 20
    found = _core.search_interval(phi, np.ones((40, 4), bool), member)
    assert len(found["lows"]) == len(found["highs"]) == len(found["divergences"]) == 210
    best = found["best"]
    assert best == found["divergences"].argmin()
    assert (found["low"], found["high"], found["divergence"]) == (
        found["lows"][best],
        found["highs"][best],
        found["divergences"][best],
    )


# ---------------------------------------------------------------- what is refused

Call = Callable[[Any, Any, Any], object]  # (engine, sampler, model) -> never returns

core: Any = _core  # what the type checker would refuse is what these tests are about
X, T = inputs(2)
IMAGES = pictures(2)
HASHES = bytes(32)


def changed(array: np.ndarray, where: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[where] = value
    return array


REFUSED: list[tuple[str, Call, type[Exception], tuple[str, ...]]] = [
    # predict
    ("x rank", lambda e, s, m: e.predict(X[0], T), ValueError, ("x: expected shape (B, 3, 8, 12)", "got (3, 8, 12)")),
    ("x channels", lambda e, s, m: e.predict(X[:, :1], T), ValueError, ("x:", "(B, 3, 8, 12)", "(2, 1, 8, 12)")),
    ("x size", lambda e, s, m: e.predict(X[..., :8], T), ValueError, ("x:", "(B, 3, 8, 12)", "(2, 3, 8, 8)")),
    ("x empty", lambda e, s, m: e.predict(X[:0], T[:0]), ValueError, ("x:", "at least one", "(0, 3, 8, 12)")),
    ("x float64", lambda e, s, m: e.predict(X.astype(float), T), TypeError, ("x: expected float32, got float64",)),
    ("x uint8", lambda e, s, m: e.predict(X.astype("u1"), T), TypeError, ("x: expected float32, got uint8",)),
    ("x None", lambda e, s, m: e.predict(None, T), ValueError, ("x: expected shape", "got ()")),
    ("x ragged", lambda e, s, m: e.predict([[1], [1, 2]], T), TypeError, ("x: expected an array, got list",)),
    ("x grad", lambda e, s, m: e.predict(torch.zeros(2, *SHAPE, requires_grad=True), T), TypeError, ("x:", "grad")),
    ("x NaN", lambda e, s, m: e.predict(changed(X, (1, 2, 3, 4), np.nan), T), ValueError, ("x[1, 2, 3, 4]", "nan")),
    ("x inf", lambda e, s, m: e.predict(changed(X, (0, 0, 0, 1), -np.inf), T), ValueError, ("x[0, 0, 0, 1]", "-inf")),
    ("x far in", lambda e, s, m: e.predict(changed(np.tile(X, (20, 1, 1, 1)), (20, 0, 0, 5), np.inf), np.tile(T, 20)),
     ValueError, ("x[20, 0, 0, 5]", "inf")),
    ("t length", lambda e, s, m: e.predict(X, T[:1]), ValueError, ("t: expected shape (2,)", "got (1,)")),
    ("t rank", lambda e, s, m: e.predict(X, 3), ValueError, ("t: expected shape (2,)", "got ()")),
    ("t float", lambda e, s, m: e.predict(X, [1.0, 2.0]), TypeError, ("t: expected integers, got float64",)),
    ("t bool", lambda e, s, m: e.predict(X, [True, False]), TypeError, ("t: expected integers, got bool",)),
    ("t high", lambda e, s, m: e.predict(X, [0, 20]), ValueError, ("t[1]", "from 0 to 19, got 20")),
    ("t low", lambda e, s, m: e.predict(X, [-1, 0]), ValueError, ("t[0]", "from 0 to 19, got -1")),
    ("t huge", lambda e, s, m: e.predict(X, [0, 1 << 32]), ValueError, ("t[1]", "got 4294967296")),
    ("t uint64", lambda e, s, m: e.predict(X, np.uint64([0, 2**64 - 1])), ValueError, ("t[1]", "18446744073709551615")),
    ("t missing", lambda e, s, m: e.predict(X), TypeError, ("'t'",)),
    # reconstruct
    ("sampler", lambda e, s, m: e.reconstruct(m, IMAGES, [0], [0], hashes=HASHES), TypeError, ("sampler", "Model")),
    ("no noise", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0]), ValueError, ("hashes", "None")),
    ("image dtype", lambda e, s, m: e.reconstruct(s, IMAGES.astype(float), [0], [0], hashes=HASHES), TypeError,
     ("images: expected float32, got float64",)),
    ("image shape", lambda e, s, m: e.reconstruct(s, IMAGES[:, :, 1:], [0], [0], hashes=HASHES), ValueError,
     ("images", "(B, 3, 8, 12)", "(2, 3, 7, 12)")),
    ("image high", lambda e, s, m: e.reconstruct(s, changed(IMAGES, (1, 0, 0, 2), 1.5), [0], [0], hashes=HASHES),
     ValueError, ("images[1, 0, 0, 2]", "from 0 to 1", "1.5")),
    ("image low", lambda e, s, m: e.reconstruct(s, changed(IMAGES, (0, 0, 0, 0), -0.25), [0], [0], hashes=HASHES),
     ValueError, ("images[0, 0, 0, 0]", "-0.25")),
    ("image NaN", lambda e, s, m: e.reconstruct(s, changed(IMAGES, (0, 1, 0, 0), np.nan), [0], [0], hashes=HASHES),
     ValueError, ("images[0, 1, 0, 0]", "nan")),
    ("index", lambda e, s, m: e.reconstruct(s, IMAGES, [0, 2], [0, 0], hashes=HASHES), ValueError,
     ("index[1]", "from 0 to 1, got 2")),
    ("no items", lambda e, s, m: e.reconstruct(s, IMAGES, np.int32([]), np.int32([]), hashes=HASHES), ValueError,
     ("index", "at least one")),
    ("draws sign", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [-1], hashes=HASHES), ValueError, ("draws[0]", "-1")),
    ("draws length", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0, 1], hashes=HASHES), ValueError,
     ("draws", "(1,)", "(2,)")),
    ("hash bytes", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0], hashes=HASHES[1:]), ValueError,
     ("hashes: expected 32 bytes, got 31",)),
    ("hash type", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0], hashes="x" * 32), TypeError, ("hashes", "str")),
    ("noise shape", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0], noise=X), ValueError,
     ("noise", "(1, 3, 8, 12)", "(2, 3, 8, 12)")),
    ("noise NaN", lambda e, s, m: e.reconstruct(s, IMAGES, [0], [0], noise=changed(X, (0, 0, 0, 7), np.nan)[:1]),
     ValueError, ("noise[0, 0, 0, 7]", "nan")),
    ("levels", lambda e, s, m: e.reconstruct(core.Sampler(core.schedule_linear(30, 1e-4, 0.02), 30, 30, "paper"),
                                             IMAGES, [0], [0], hashes=HASHES), ValueError, ("29",)),
    # Engine, memory
    ("model", lambda e, s, m: core.Engine(e, batch=1, threads=1), TypeError, ("model", "Model", "Engine")),
    ("batch 0", lambda e, s, m: core.Engine(m, batch=0, threads=1), ValueError, ("batch", "got 0")),
    ("batch float", lambda e, s, m: core.Engine(m, batch=1.0, threads=1), TypeError, ("batch", "float")),
    ("batch huge", lambda e, s, m: core.Engine(m, batch=1 << 40, threads=1), ValueError, ("batch", str(1 << 40))),
    ("threads 0", lambda e, s, m: core.Engine(m, batch=1, threads=0), ValueError, ("threads", "got 0")),
    ("threads many", lambda e, s, m: core.Engine(m, batch=1, threads=10**6), ValueError, ("threads", "1000000")),
    ("no batch", lambda e, s, m: core.Engine(m, threads=1), TypeError, ("'batch'",)),
    ("memory", lambda e, s, m: m.memory(0, 1), ValueError, ("batch", "got 0")),
    # Sampler and schedule
    ("T 0", lambda e, s, m: core.Sampler(ALPHA_BAR, 0, 1, "paper"), ValueError, ("T", "0")),
    ("T high", lambda e, s, m: core.Sampler(ALPHA_BAR, 21, 1, "paper"), ValueError, ("T", "21")),
    ("T official", lambda e, s, m: core.Sampler(ALPHA_BAR, 20, 1, "official"), ValueError, ("T", "20")),
    ("k 0", lambda e, s, m: core.Sampler(ALPHA_BAR, 5, 0, "paper"), ValueError, ("k", "0")),
    ("k high", lambda e, s, m: core.Sampler(ALPHA_BAR, 5, 6, "paper"), ValueError, ("k", "6")),
    ("k float", lambda e, s, m: core.Sampler(ALPHA_BAR, 5, 2.5, "paper"), TypeError, ("k", "float")),
    ("mode", lambda e, s, m: core.Sampler(ALPHA_BAR, 5, 5, "other"), ValueError, ("mode", "'paper'", "'other'")),
    ("mode type", lambda e, s, m: core.Sampler(ALPHA_BAR, 5, 5, 0), TypeError, ("mode", "int")),
    ("alpha_bar", lambda e, s, m: core.Sampler([0.5, 0.9], 2, 1, "paper"), ValueError, ("alpha_bar[1]",)),
    ("alpha_bar NaN", lambda e, s, m: core.Sampler([np.nan], 1, 1, "paper"), ValueError, ("alpha_bar[0]", "nan")),
    ("alpha_bar dtype", lambda e, s, m: core.Sampler([1, 0], 1, 1, "paper"), TypeError, ("alpha_bar", "int64")),
    ("steps", lambda e, s, m: core.schedule_linear(0, 1e-4, 0.02), ValueError, ("steps", "0")),
    ("beta", lambda e, s, m: core.schedule_linear(10, 0.0, 0.02), ValueError, ("first", "0")),
    # noise and hashes
    ("counter", lambda e, s, m: core.philox([0, 0, 0], [0, 0]), TypeError, ("counter", "4")),
    ("word", lambda e, s, m: core.philox([0, 0, 0, 1 << 32], [0, 0]), ValueError, ("counter", str(1 << 32))),
    ("key", lambda e, s, m: core.siphash128(b"short", b""), ValueError, ("key: expected 16 bytes, got 5",)),
    ("key type", lambda e, s, m: core.content_hashes("k" * 16, IMAGES), TypeError, ("key", "str")),
    ("hash images", lambda e, s, m: core.content_hashes(KEY, IMAGES[0]), ValueError, ("images", "(B, C, H, W)")),
    ("hash range", lambda e, s, m: core.content_hashes(KEY, IMAGES + 1), ValueError, ("images[0, 0, 0, 0]",)),
    ("hash length", lambda e, s, m: core.normals(b"", 0, 0, 1), ValueError, ("hash: expected 16 bytes, got 0",)),
    ("draw", lambda e, s, m: core.normals(KEY, -1, 0, 1), ValueError, ("draw", "-1")),
    ("count", lambda e, s, m: core.normals(KEY, 0, 5, 1 << 32), ValueError, ("count", str(1 << 32))),
    # selection
    ("logits rank", lambda e, s, m: core.phi([1.0, 2.0]), ValueError, ("logits", "(M, C)", "(2,)")),
    ("logits dtype", lambda e, s, m: core.phi([[1, 2]]), TypeError, ("logits: expected float64, got int64",)),
    ("one class", lambda e, s, m: core.phi([[1.0]]), ValueError, ("logits", "1")),
    ("logits NaN", lambda e, s, m: core.phi([[1.0, 2.0], [0.0, np.nan]]), ValueError, ("logits", "1", "nan")),
    ("interval", lambda e, s, m: core.select([[0.0]], [[0]], [0], (1, 0)), ValueError, ("interval", "(1, 0)")),
    ("interval NaN", lambda e, s, m: core.select([[0.0]], [[0]], [0], (0, np.nan)), ValueError, ("interval", "nan")),
    ("interval type", lambda e, s, m: core.select([[0.0]], [[0]], [0], 3), TypeError, ("interval", "3")),
    ("interval text", lambda e, s, m: core.select([[0.0]], [[0]], [0], "ab"), TypeError, ("interval", "'ab'")),
    ("predicted", lambda e, s, m: core.select([[0.0]], [[0, 1]], [0]), ValueError, ("predicted", "(1, 1)", "(1, 2)")),
    ("labels", lambda e, s, m: core.select([[0.0]], [[0]], [0, 1]), ValueError, ("labels", "(1,)", "(2,)")),
    ("label", lambda e, s, m: core.select([[0.0]], [[0]], [-3]), ValueError, ("labels[0]", "-3")),
    ("phi NaN", lambda e, s, m: core.select([[np.nan]], [[0]], [0]), ValueError, ("phi",)),
    ("kind", lambda e, s, m: core.average([[[0.0, 1.0]]], "median"), ValueError, ("kind", "'median'")),
    ("average", lambda e, s, m: core.average([[0.0, 1.0]]), ValueError, ("logits", "(B, n, C)", "(1, 2)")),
    ("match", lambda e, s, m: core.search_interval([[0.0]], [[1]], [True]), TypeError, ("match: expected bool",)),
    ("member", lambda e, s, m: core.search_interval([[0.0]], [[True]], [True] * 2), ValueError, ("member", "(2,)")),
    ("groups", lambda e, s, m: core.search_interval([[0.0]], [[True]], [True]), ValueError, ("member",)),
    ("original", lambda e, s, m: core.search_interval([[0.0]], [[True]], [True], mode="official"), ValueError,
     ("phi_original",)),
    # draws
    ("n 0", lambda e, s, m: core.Draws(0, [1]), ValueError, ("n:", "got 0")),
    ("no labels", lambda e, s, m: core.Draws(3, np.int64([])), ValueError, ("labels", "at least one")),
    ("label sign", lambda e, s, m: core.Draws(3, [0, -1]), ValueError, ("labels[1]", "-1")),
    ("label type", lambda e, s, m: core.Draws(3, [0.5]), TypeError, ("labels: expected integers",)),
    ("most", lambda e, s, m: core.Draws(3, [0]).next(0), ValueError, ("most", "got 0")),
    ("not out", lambda e, s, m: core.Draws(3, [0]).submit([0], [0], [0.0], [0]), ValueError, ("(0, 0)",)),
    ("item", lambda e, s, m: core.Draws(3, [0]).submit([0], [3], [0.0], [0]), ValueError, ("draw[0]", "got 3")),
    ("phi length", lambda e, s, m: core.Draws(3, [0]).submit([0], [0], [0.0, 1.0], [0]), ValueError, ("phi", "(2,)")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "parts"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(
    call: Call, kind: type[Exception], parts: tuple[str, ...], engine: Any, sampler: Any, model: Any
) -> None:
    with raises(kind, *parts):
        call(engine, sampler, model)


def test_refused_models(small_program: Program, make_model: MakeModel) -> None:
    weights = dict(small_program.weights)
    first = next(iter(weights))

    def with_weight(array: Any) -> list[tuple[str, Any]]:
        return list((weights | {first: array}).items())

    bad: list[tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = [
        ({"shape": (3, 8)}, TypeError, ("shape: expected (channels, height, width)", "(3, 8)")),
        ({"shape": 3}, TypeError, ("shape", "3")),
        ({"shape": (3, 0, 8)}, ValueError, ("shape[1]", "0")),
        ({"shape": (3, 8, 1 << 40)}, ValueError, ("shape[2]", str(1 << 40))),
        ({"ops": small_program.ops[:, :6]}, ValueError, ("ops", "(N, 7)")),
        ({"ops": small_program.ops.astype(float)}, TypeError, ("ops: expected integers",)),
        ({"ops": small_program.ops.astype(np.uint64)}, ValueError, ("ops[0, 2]", str(2**64 - 1))),
        ({"ops": small_program.ops[:0]}, ValueError, ("ops", "at least one")),
        ({"epsilons": small_program.epsilons[:-1]}, ValueError, ("epsilons",)),
        ({"epsilons": small_program.epsilons.astype(float)}, TypeError, ("epsilons: expected float32",)),
        ({"weights": 3}, TypeError, ("weights", "int")),
        ({"weights": list(weights.values())}, TypeError, ("weights[0]", "(name, array)")),
        ({"weights": [(b"name", array) for array in weights.values()]}, TypeError, ("weights[0]",)),
        ({"weights": with_weight(weights[first].astype(float))}, TypeError, ("weights[0]", first, "float32")),
        ({"weights": with_weight(np.float32(1))}, ValueError, ("weights[0]", first, "dimensions")),
        ({"weights": with_weight(weights[first] * np.float32(np.inf))}, ValueError, (first, "finite", "inf")),
        ({"weights": list(weights.items())[:-1]}, ValueError, ("weight",)),
        ({"weights": [*weights.items(), ("surplus", np.zeros(3, np.float32))]}, ValueError, ("surplus",)),
        ({"isa": "nonsense"}, ValueError, ("isa", "nonsense")),
        ({"isa": 3}, TypeError, ("isa", "int")),
    ]
    for changes, kind, parts in bad:
        with raises(kind, *parts):
            make_model(**changes)


def test_objects_are_closed(model: _core.Model, engine: _core.Engine, sampler: _core.Sampler) -> None:
    for thing in (model, engine, sampler, _core.Draws(1, [0])):
        with pytest.raises(AttributeError):
            thing.extra = 1  # type: ignore[union-attr]
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing)
    with pytest.raises(AttributeError):
        model.isa = "other"  # type: ignore[misc]


def test_draws_of_absurd_size_run_out_of_memory() -> None:
    with pytest.raises(MemoryError):
        _core.Draws(2**31 - 1, np.zeros(1 << 20, np.int32))
