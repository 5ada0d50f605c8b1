"""Time of the interval search of scenario 1: the core on one thread beside plain NumPy.

    python benchmarks/interval_search.py [--images 2000] [--draws 30] [--repeats 7]

Both search the same random phi, in turn, so that a busy machine slows both; printed are the medians. The answers must
be equal: the same pairs, the same best one, divergences within 1e-12.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "tests")]

from plain_interval import plain_search  # noqa: E402

from diffence import _core  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Interval search: the core beside plain NumPy.")
    parser.add_argument("--images", type=int, default=2000, help="members and non-members together (default: 2000)")
    parser.add_argument("--draws", type=int, default=30, help="reconstructions of each image (default: 30)")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, of which the median counts (default: 7)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.images < 2 or args.draws < 1 or args.repeats < 1:
        parser.error("expected at least 2 images, 1 draw and 1 repeat")

    rng = np.random.default_rng(args.seed)
    member = np.arange(args.images) % 2 == 0
    phi_original = rng.normal(4 + 2 * member, 2)
    phi = phi_original[:, None] + rng.normal(-1, 1.5, (args.images, args.draws))
    match = rng.random(phi.shape) < 0.9
    match[:2, 0] = True

    print(
        f"{args.images} images x {args.draws} draws, medians of {args.repeats} runs, one thread, NumPy {np.__version__}"
    )
    print(f"{'mode':<10}{'pairs':>6}{'core':>12}{'NumPy':>12}{'ratio':>8}  interval")
    for mode, original in (("paper", None), ("official", phi_original)):
        times: dict[str, list[float]] = {"core": [], "numpy": []}
        for _ in range(args.repeats):
            start = time.perf_counter()
            core = _core.search_interval(phi, match, member, mode=mode, phi_original=original)  # type: ignore[arg-type]
            middle = time.perf_counter()
            plain = plain_search(phi, match, member, mode, original)
            times["core"].append(middle - start)
            times["numpy"].append(time.perf_counter() - middle)
        if core["best"] != plain["best"] or np.abs(core["divergences"] - plain["divergences"]).max() > 1e-12:
            sys.exit(f"{mode}: the core and NumPy disagree")
        core_time, plain_time = (statistics.median(times[name]) for name in ("core", "numpy"))
        print(
            f"{mode:<10}{len(core['lows']):>6}{core_time * 1e3:>9.1f} ms{plain_time * 1e3:>9.1f} ms"
            f"{plain_time / core_time:>7.1f}x  [{core['low']:.3f}, {core['high']:.3f}]"
        )


if __name__ == "__main__":
    main()
