"""One engine in one process: builds, shows that it is right, then measures whenever it is asked.

Requests come as one JSON object a line on standard input, answers go the same way to standard output; what libraries
print goes to standard error. The first line is the task (see `Task`); the first answer is {"ready": {measure: error}}
or {"unavailable": reason}. After that, {"measure": name, "seconds": s} repeats the call for about s seconds and answers
{"units": images or evaluations done, "wall": seconds, "cpu": seconds}.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.engines import ENGINES, Engine

__all__ = ["Measure", "Task", "Unavailable", "relative_l2"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What a worker builds. folder: written by harness.prepare. batch: of the network. fenced: whole images instead.

    draws, T: of the fence. images: that one call fences, with all draws.
    """

    engine: str
    folder: str
    batch: int
    threads: int
    fenced: bool = False
    draws: int = 30
    T: int = 160
    images: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Measure:
    """Something to time: `call` does `units` of it at once, `repeat` times when `calls` are asked for.

    error: relative L2 distance of its result from float64, on the images that float64 was computed for.
    run: how to make several calls, where that is more than a loop. facts: anything worth reporting.
    """

    call: Callable[[], Any]
    units: float
    error: float
    run: Callable[[int], Any] | None = None
    facts: dict[str, Any] | None = None

    def repeat(self, calls: int) -> None:
        if self.run is not None:
            self.run(calls)
        else:
            for _ in range(calls):
                self.call()


class Unavailable(Exception):
    """The engine cannot be had here; the message says why."""


def relative_l2(result: Any, reference: NDArray[np.float64]) -> float:
    """|result - reference| / |reference| over everything."""
    difference = np.asarray(result, np.float64) - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))


class Case:
    """The files of harness.prepare."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = Path(task.folder)
        with np.load(self.folder / "inputs.npz") as arrays:
            self.x: Array = arrays["x"]
            self.t: NDArray[np.int64] = arrays["t"]
            self.rows: NDArray[np.int64] = arrays["rows"]  # those that the reference has
            self.eps: NDArray[np.float64] = arrays["eps"]
        if task.fenced:
            with np.load(self.folder / "fence.npz") as arrays:
                self.images: Array = arrays["images"]
                self.noise: Array = arrays["noise"]  # of the first image
                self.draws: NDArray[np.int64] = arrays["draws"]  # those that the reference has
                self.references = {kind: arrays[kind] for kind in ("paper", "release")}
                self.alpha_bar: NDArray[np.float64] = arrays["alpha_bar"]

    def error(self, eps: Any) -> float:
        return relative_l2(np.asarray(eps)[self.rows], self.eps)

    def classifier(self) -> Any:
        import torch

        from diffence import classifiers

        channels, *image = self.images.shape[1:]
        model: Any = classifiers.build("resnet18", classes=10, channels=channels, image=image, seed=1)
        return model.eval().to(memory_format=torch.channels_last)


# ------------------------------------------------------------------ engines


def build_diffence(engine: Engine, case: Case) -> dict[str, Measure]:
    """The engine of diffence, by the same call that a user makes."""
    import torch

    import diffence.engine
    from diffence.fence import Diffence

    task = case.task
    torch.set_num_threads(task.threads)
    try:
        ours = diffence.engine.Engine(
            case.folder / "network.safetensors",
            precision=engine.precision,
            threads=task.threads,
            batch=None if task.fenced else task.batch,
        )
    except RuntimeError as refusal:
        raise Unavailable(f"no {engine.precision} engine: {refusal}") from refusal
    facts = {"isa": ours.isa, "memory": ours.memory()}
    if not task.fenced:
        error = case.error(ours.predict_noise(case.x, case.t))
        return {"evaluate": Measure(lambda: ours.predict_noise(case.x, case.t), task.batch, error, facts=facts)}

    noise = case.noise[None]
    result = ours.reconstruct(case.images[:1], task.draws, task.T, noise=noise)[0][case.draws]
    error = relative_l2(result, case.references["paper"])
    options: dict[str, Any] = {"n": task.draws, "T": task.T, "scenario": 3, "key": 0}
    if len(case.images[0]) == 3:
        from harness.fencing import MEAN, STD

        options |= {"mean": MEAN, "std": STD}
    classifier, images = case.classifier(), case.images[: task.images]
    exact = Diffence(classifier, ours, **options)
    if not torch.equal(exact(images), exact.variant(draws="early")(images)):
        raise RuntimeError("early and full mode disagree")
    # The classifier is PyTorch's behind every fence, and so it is tuned as that of the fastest one. Compiled, its last
    # bits may depend on an image's place in its batch, so the modes are not compared with it.
    full = Diffence(_compiled(classifier), ours, **options)
    early = full.variant(draws="early")
    measures = {"paper": Measure(lambda: full(images), len(images), error, facts=facts)}
    # Stopping early pays off for images that agree, so those are timed, repeated until they fill a batch of the engine.
    records = early.explain(case.images)
    agreeing = np.flatnonzero([record.draws_used == 1 for record in records])
    if len(agreeing):
        many = case.images[np.resize(agreeing, ours.batch)]
        shown = {
            "images asked": len(records),
            "first draw agrees": len(agreeing),
            "draws used an image": float(np.mean([record.draws_used for record in records])),
        }
        measures["early"] = Measure(lambda: early(many), len(many), error, facts=facts | shown)
    return measures


def _compiled(model: Any, mode: str | None = None) -> Any:
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    torch._dynamo.config.cache_size_limit = 32
    return torch.compile(model.requires_grad_(False), mode=mode, dynamic=False)


def build_torch(engine: Engine, case: Case) -> dict[str, Measure]:
    """PyTorch, eager or compiled, in float32, autocast or wholly in bfloat16."""
    import torch

    import diffence.unets
    from diffence.unets import DDPMUNet

    task, options = case.task, dict(engine.options)
    torch.set_num_threads(task.threads)
    layout = torch.contiguous_format if options.get("layout") == "nchw" else torch.channels_last
    cast = options.get("cast")
    dtype = torch.bfloat16 if cast == "pure" else torch.float32

    def prepare(model: Any) -> Any:
        model = model.eval().requires_grad_(False).to(memory_format=layout, dtype=dtype)
        mode = options.get("compile")
        if mode is None:
            return model
        return _compiled(model, None if mode == "default" else mode)

    model = diffence.unets.load(case.folder / "network.safetensors")
    plain = DDPMUNet(model.config)
    plain.load_state_dict(model.tensors())
    network = prepare(plain)
    autocast = torch.autocast("cpu", torch.bfloat16) if cast == "autocast" else contextlib.nullcontext()

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast:
            eps: torch.Tensor = network(x.to(dtype), t).float()
            return eps

    facts = {"torch": torch.__version__}
    if not task.fenced:
        x, t = torch.from_numpy(case.x).contiguous(memory_format=layout), torch.from_numpy(case.t)
        error = case.error(predict(x, t))
        return {"evaluate": Measure(lambda: predict(x, t), task.batch, error, facts=facts)}

    from harness.fencing import MEAN, STD, fence, reconstruct

    classifier = prepare(case.classifier())
    colour = case.images.shape[1] == 3
    mean, std = (torch.tensor(v if colour else (0.5,)).reshape(1, -1, 1, 1) for v in (MEAN, STD))

    def classify(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast:
            logits: torch.Tensor = classifier(((images - mean) / std).to(dtype)).float()
            return logits

    alpha_bar = torch.from_numpy(case.alpha_bar)
    images, noise = torch.from_numpy(case.images), torch.from_numpy(case.noise)
    measures = {}
    for kind in ("paper", "release"):
        drawn = reconstruct(predict, alpha_bar, images[0], noise, task.T, kind)
        error = relative_l2(drawn.numpy()[case.draws], case.references[kind])

        def run(kind: str = kind) -> torch.Tensor:
            return fence(predict, classify, alpha_bar, images[: task.images], task.draws, task.T, kind)

        measures[kind] = Measure(run, task.images, error, facts=facts)
    return measures


def build_onnxruntime(engine: Engine, case: Case) -> dict[str, Measure]:
    """ONNX Runtime on the exported network, all optimisations on, its own pool of as many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.task.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    model = str(case.folder / "network.onnx")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": case.x, "t": case.t}
    error = case.error(session.run(None, feeds)[0])
    facts = {"onnxruntime": onnxruntime.__version__}
    return {"evaluate": Measure(lambda: session.run(None, feeds), case.task.batch, error, facts=facts)}


def build_openvino(engine: Engine, case: Case) -> dict[str, Measure]:
    """OpenVINO: LATENCY, one batch after the other; THROUGHPUT, always two batches in flight."""
    import openvino

    task, hint = case.task, dict(engine.options)["hint"]
    precision = {"fp32": "f32", "bf16": "bf16"}[engine.precision]
    config = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": precision,
        "EXECUTION_MODE_HINT": "PERFORMANCE",
    }
    flight = 2
    if hint == "THROUGHPUT":
        config["PERFORMANCE_HINT_NUM_REQUESTS"] = flight
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(case.folder / "network.xml"), "CPU", config)
    used = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    facts = {
        "openvino": metadata.version("openvino"),
        "precision": used,
        "streams": int(compiled.get_property("NUM_STREAMS")),
    }
    if engine.precision == "bf16" and "bf16" not in used and "bfloat16" not in used:
        raise Unavailable(f"OpenVINO computes in {used} although it was asked for bf16")
    feeds = [case.x, case.t]
    if hint == "LATENCY":
        request = compiled.create_infer_request()

        def infer() -> Any:
            return request.infer(feeds, share_inputs=True, share_outputs=True)[0]

        error = case.error(infer())
        return {"evaluate": Measure(infer, task.batch, error, facts=facts)}

    queue = openvino.AsyncInferQueue(compiled, flight)

    def run(calls: int) -> None:
        for _ in range(calls):
            queue.start_async(feeds, share_inputs=True)
        queue.wait_all()

    run(flight)
    error = max(case.error(request.get_output_tensor(0).data) for request in queue)
    return {"evaluate": Measure(lambda: run(flight), flight * task.batch, error, lambda n: run(flight * n), facts)}


_BUILDERS = {
    "diffence": build_diffence,
    "torch": build_torch,
    "onnxruntime": build_onnxruntime,
    "openvino": build_openvino,
}

# ------------------------------------------------------------------ the protocol


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _measure(measure: Measure, calls: int) -> dict[str, float]:
    cpu, start = _processor_time(), time.perf_counter()
    measure.repeat(calls)
    wall = time.perf_counter() - start
    return {"units": measure.units * calls, "wall": wall, "cpu": _processor_time() - cpu}


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    task = Task(**json.loads(sys.stdin.readline()))
    engine = ENGINES[task.engine]
    try:
        measures = _BUILDERS[engine.family](engine, Case(task))
    except Unavailable as reason:
        answer({"unavailable": str(reason)})
        return
    seconds = {name: _measure(measure, 1)["wall"] for name, measure in measures.items()}
    answer(
        {
            "ready": {name: measure.error for name, measure in measures.items()},
            "facts": {name: measure.facts or {} for name, measure in measures.items()},
            "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
    for line in sys.stdin:
        request = json.loads(line)
        name = request["measure"]
        calls = max(1, round(request["seconds"] / seconds[name]))
        result = _measure(measures[name], calls)
        seconds[name] = min(seconds[name], result["wall"] / calls)
        answer(result)


if __name__ == "__main__":
    main()
