"""The CPython boundary beside threads, signals and processes, and what it keeps in memory and at import."""

from __future__ import annotations

import gc
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffence import _core
from diffence.unets.program import Program

MakeModel = Callable[..., _core.Model]

KEY = bytes(range(16))
SHAPE = (3, 8, 12)
STEPS = 20
ALPHA_BAR = _core.schedule_linear(STEPS, 1e-4, 0.02)


@pytest.fixture(scope="module")
def engine(make_model: MakeModel) -> _core.Engine:
    return _core.Engine(make_model(), batch=4, threads=1)


@pytest.fixture(scope="module")
def sampler() -> _core.Sampler:
    return _core.Sampler(ALPHA_BAR, 10, 3, "paper")


def inputs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE)).astype(np.float32), rng.integers(0, STEPS, count).astype(np.int32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)


# ---------------------------------------------------------------- memory


def test_nothing_is_kept_of_the_weights(small_program: Program, make_model: MakeModel) -> None:
    weights = [(name, array.copy()) for name, array in small_program.weights.items()]
    x, t = inputs(2)
    counts = [sys.getrefcount(array) for _, array in weights]
    model = make_model(weights=weights)
    assert [sys.getrefcount(array) for _, array in weights] == counts
    engine = _core.Engine(model, batch=2, threads=1)
    before = engine.predict(x, t)
    for _, array in weights:
        array.fill(0)
    np.testing.assert_array_equal(engine.predict(x, t), before)


def test_references_return(engine: _core.Engine, sampler: _core.Sampler) -> None:
    x, t = inputs(2)
    images, index, draws = pictures(2), np.array([0, 1]), np.array([0, 0])
    noise = x.copy()
    hashes = _core.content_hashes(KEY, images)
    held = [x, t, images, index, draws, noise, hashes, engine, sampler, engine.model, KEY]
    bad = images.copy()
    bad[1, 2, 7, 11] = 2

    def every_call() -> None:
        engine.predict(x, t)
        engine.reconstruct(sampler, images, index, draws, hashes=hashes)
        engine.reconstruct(sampler, images, index, draws, noise=noise)
        _core.content_hashes(KEY, images)
        _core.phi(x.reshape(2, -1))
        _core.select(x[:, 0, 0], index[:, None].repeat(12, 1), index)
        _core.average(x[0])
        with pytest.raises(ValueError, match="images"):
            engine.reconstruct(sampler, bad, index, draws, hashes=hashes)
        with pytest.raises(ValueError, match="noise"):
            engine.reconstruct(sampler, images, index, draws, hashes=hashes, noise=noise[:1])
        with pytest.raises(ValueError, match="t"):
            engine.predict(x, t + 100)

    every_call()
    counts = [sys.getrefcount(thing) for thing in held]
    for _ in range(20):
        every_call()
    assert [sys.getrefcount(thing) for thing in held] == counts


def test_engine_keeps_its_model(make_model: MakeModel) -> None:
    x, t = inputs(2)
    model = make_model()
    engine = _core.Engine(model, batch=2, threads=1)
    expected = engine.predict(x, t)
    del model
    gc.collect()
    np.testing.assert_array_equal(engine.predict(x, t), expected)


def resident() -> int:
    fields = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs /proc")
def test_create_and_destroy_do_not_grow(make_model: MakeModel, sampler: _core.Sampler) -> None:
    images = pictures(8)
    hashes = _core.content_hashes(KEY, images)

    def cycle() -> None:
        model = make_model()
        engine = _core.Engine(model, batch=16, threads=2)
        engine.reconstruct(sampler, images, np.arange(8), np.zeros(8, int), hashes=hashes)
        scheduler = _core.Draws(300, np.zeros(500, np.int32))
        index, draw = scheduler.next(10**6)
        scheduler.submit(index, draw, np.zeros(len(index)), np.zeros(len(index), int))
        scheduler.result()
        with pytest.raises(ValueError, match="T is"):
            _core.Sampler(ALPHA_BAR, 21, 1, "paper")

    for _ in range(10):
        cycle()
    before = resident()
    for _ in range(100):
        cycle()  # about 3 MB of buffers each
    assert resident() - before < 30 << 20


# ---------------------------------------------------------------- threads, signals, processes


def test_other_threads_run_during_a_predict(engine: _core.Engine) -> None:
    x, t = inputs(64)
    done, ticks = threading.Event(), []

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    worker = threading.Thread(target=tick)
    worker.start()
    begin = end = 0.0
    while end - begin < 0.3:  # one call that takes this long
        x, t = np.concatenate([x, x]), np.concatenate([t, t])
        begin = time.perf_counter()
        engine.predict(x, t)
        end = time.perf_counter()
    done.set()
    worker.join()
    assert sum(begin < moment < end for moment in ticks) >= 3


def test_threads_take_turns_on_one_engine(make_model: MakeModel, sampler: _core.Sampler) -> None:
    engine = _core.Engine(make_model(), batch=8, threads=2)
    work = [inputs(40, seed) for seed in range(4)]
    images = pictures(20)
    hashes = _core.content_hashes(KEY, images)
    items = np.arange(20), np.zeros(20, int)
    expected = [engine.predict(x, t) for x, t in work]
    rebuilt = engine.reconstruct(sampler, images, *items, hashes=hashes)
    wrong: list[str] = []

    def run(number: int) -> None:
        x, t = work[number]
        for _ in range(10):
            if not np.array_equal(engine.predict(x, t), expected[number]):
                wrong.append(f"predict of thread {number}")
            if not np.array_equal(engine.reconstruct(sampler, images, *items, hashes=hashes), rebuilt):
                wrong.append(f"reconstruct of thread {number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_draws_shared_by_threads() -> None:
    scheduler = _core.Draws(20, np.zeros(200, int))
    handed: list[tuple[int, int]] = []

    def run() -> None:
        while not scheduler.done:
            index, draw = scheduler.next(17)
            handed.extend(zip(index.tolist(), draw.tolist(), strict=True))
            if len(index):
                scheduler.submit(index, draw, np.zeros(len(index)), np.zeros(len(index), int))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handed) == len(set(handed)) == 4000


# The extension alone: the package would import torch, which takes seconds.
LOAD = f"""
import importlib.machinery, importlib.util
def load(path={_core.__file__!r}):
    loader = importlib.machinery.ExtensionFileLoader("diffence._core", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("diffence._core", loader))
    loader.exec_module(module)
    return module
"""

SETUP = f"""
{LOAD}
import os, signal, sys, threading, time
import numpy as np
_core = load()
program = np.load(sys.argv[1])
weights = [(key[2:], program[key]) for key in program.files if key.startswith("w:")]
model = _core.Model(tuple(program["shape"].tolist()), program["ops"], program["epsilons"], weights, isa="reference")
engine = _core.Engine(model, batch=8, threads=2)
alpha_bar = _core.schedule_linear(20, 1e-4, 0.02)
sampler = _core.Sampler(alpha_bar, 20, 1, "paper")
images = np.random.default_rng(0).random((8, *model.shape), dtype=np.float32)
hashes = _core.content_hashes(bytes(16), images)
short = np.arange(8), np.zeros(8, int)
begin = time.perf_counter()
expected = engine.reconstruct(sampler, images, *short, hashes=hashes)
once = time.perf_counter() - begin
"""

INTERRUPTED = """
repeats = max(1, round(8 / once))
long = np.tile(short[0], repeats), np.arange(8 * repeats)
sent = []
def kill():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3, kill).start()
try:
    engine.reconstruct(sampler, images, *long, hashes=hashes)
except KeyboardInterrupt:
    late = time.perf_counter() - sent[0]
else:
    sys.exit("no KeyboardInterrupt")
assert late < 1, late
assert np.array_equal(engine.reconstruct(sampler, images, *short, hashes=hashes), expected)

# While another thread has the engine, the wait for it ends as well.
def other():
    other_done.append(engine.predict(np.zeros((64 * repeats, *model.shape), np.float32), np.zeros(64 * repeats, int)))
other_done = []
thread = threading.Thread(target=other, daemon=True)
thread.start()
time.sleep(0.1)
threading.Timer(0.3, kill).start()
try:
    engine.predict(images, np.zeros(8, int))
except KeyboardInterrupt:
    assert time.perf_counter() - sent[1] < 1
    assert not other_done
else:
    sys.exit("no KeyboardInterrupt while waiting")
print("fine", flush=True)
os._exit(0)
"""

HANDLER = """
def again(*_):
    engine.predict(images, np.zeros(8, int))
signal.signal(signal.SIGUSR1, again)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
repeats = max(1, round(8 / once))
try:
    engine.reconstruct(sampler, images, np.tile(short[0], repeats), np.arange(8 * repeats), hashes=hashes)
except RuntimeError as error:
    assert "signal handler" in str(error), error
else:
    sys.exit("no RuntimeError")
assert np.array_equal(engine.reconstruct(sampler, images, *short, hashes=hashes), expected)
print("fine")
"""

FORKED_WHILE_BUSY = """
repeats = max(1, round(5 / once))
def other():
    engine.reconstruct(sampler, images, np.tile(short[0], repeats), np.arange(8 * repeats), hashes=hashes)
threading.Thread(target=other, daemon=True).start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    try:
        engine.predict(images, np.zeros(8, int))
    except RuntimeError as error:
        fresh = _core.Engine(model, batch=8, threads=2)
        same = np.array_equal(fresh.reconstruct(sampler, images, *short, hashes=hashes), expected)
        os._exit(0 if same and "forked" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("fine", flush=True)
os._exit(0)
"""

EXIT_WHILE_BUSY = """
x = np.zeros((8 * max(1, round(10 / once)), *model.shape), np.float32)
threading.Thread(target=engine.predict, args=(x, np.zeros(len(x), int)), daemon=True).start()
time.sleep(0.1)
print("fine")
"""


@pytest.mark.parametrize(
    "script",
    [INTERRUPTED, HANDLER, FORKED_WHILE_BUSY, EXIT_WHILE_BUSY],
    ids=["Ctrl-C", "handler", "fork while busy", "exit while busy"],
)
def test_in_a_process_of_its_own(script: str, small_program: Program, tmp_path: pathlib.Path) -> None:
    named: dict[str, Any] = {f"w:{name}": array for name, array in small_program.weights.items()}
    path = tmp_path / "program.npz"
    np.savez(path, shape=small_program.shape, ops=small_program.ops, epsilons=small_program.epsilons, **named)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SETUP + script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def child_predict(engine: _core.Engine, x: np.ndarray, t: np.ndarray) -> bytes:
    return engine.predict(x, t).tobytes()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_use(make_model: MakeModel) -> None:
    engine = _core.Engine(make_model(), batch=4, threads=2)
    x, t = inputs(6)
    expected = engine.predict(x, t)
    results: Any = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: results.put((engine.predict(x, t).tobytes(), make_model().isa))
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert results.get() == (expected.tobytes(), engine.model.isa)
    np.testing.assert_array_equal(engine.predict(x, t), expected)


# ---------------------------------------------------------------- import

WORKS_OR_IMPORT_ERROR = f"""
{LOAD}
try:
    core = load()
except ImportError:
    pass
else:
    assert core.phi([[1.0, 2.0]])[1].tolist() == [1]
"""

IN_A_SUBINTERPRETER = f"""
code = {WORKS_OR_IMPORT_ERROR!r}
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    made = interpreters.create()
    failed = interpreters.exec(made, code)
    assert failed is None, failed
else:
    import _xxsubinterpreters as interpreters
    made = interpreters.create()
    interpreters.run_string(made, code)
interpreters.destroy(made)
{LOAD}
assert load().phi([[1.0, 2.0]])[1].tolist() == [1]
print("fine")
"""

TWICE = f"""
import gc
{LOAD}
one, two = load(), load()
assert one is not two and one.Model is not two.Model  # each module has its own state
sampler = one.Sampler([0.5], 1, 1, "paper")
try:
    two.Engine(sampler, batch=1, threads=1)
except TypeError as error:
    assert "model" in str(error)
del one
gc.collect()
assert sampler.steps and two.Draws(1, [0]).next(1)[0].tolist() == [0]
print("fine")
"""

SUBNORMALS = f"""
import numpy as np
tiny = np.float32([1e-40])
assert (tiny * np.float32(1)).item() > 0
{LOAD}
load().average(np.ones((1, 2, 2)))
assert (tiny * np.float32(1)).item() > 0, "importing the core has switched the process to flush-to-zero"
print("fine")
"""


@pytest.mark.parametrize(
    "script", [IN_A_SUBINTERPRETER, TWICE, SUBNORMALS], ids=["subinterpreter", "twice", "subnormal"]
)
def test_import(script: str) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_wrong_environment_is_an_error_at_first_use(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFENCE_ISA", "nonsense")
    monkeypatch.setenv("DIFFENCE_NUM_THREADS", "many")
    script = LOAD + "load().isas()"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
    with pytest.raises(ValueError, match=r"DIFFENCE_ISA.*nonsense"):
        make_model()
    with pytest.raises(ValueError, match=r"DIFFENCE_ISA.*nonsense"):
        _core.default_isa()
    with pytest.raises(ValueError, match=r"DIFFENCE_NUM_THREADS.*many"):
        _core.default_threads()
    assert make_model(isa="reference").isa == "reference"
    monkeypatch.setenv("DIFFENCE_ISA", "reference")
    monkeypatch.setenv("DIFFENCE_NUM_THREADS", "3")
    assert _core.default_isa() == make_model().isa == "reference"
    assert _core.default_threads() == 3


def test_an_instruction_set_that_cannot_run_here(make_model: MakeModel) -> None:
    missing = [name for name, supported in _core.isas().items() if not supported]
    if not missing:
        pytest.skip("this machine can run every instruction set of the build")
    for name in missing:
        with pytest.raises(RuntimeError, match=name):
            make_model(isa=name)
