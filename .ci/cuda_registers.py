#!/usr/bin/env python3
"""Registers and spills of the CUDA kernels, by the compiler's own report, against csrc/cuda/registers.txt.

    python .ci/cuda_registers.py            # compare
    python .ci/cuda_registers.py --record   # write the table anew

No kernel may spill, whatever the compiler; with the compiler of the table none may take more registers than it says.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLE = ROOT / "csrc" / "cuda" / "registers.txt"
ARCHITECTURES = ("80", "90a")


def compiler() -> str | None:
    return shutil.which("nvcc") or next(iter(map(str, pathlib.Path("/usr/local/cuda/bin").glob("nvcc"))), None)


def version(nvcc: str) -> str:
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"release (\S+),", text)[0]


def report(nvcc: str) -> dict[str, tuple[int, int]]:
    """ "sm_80 kernel<types>" -> registers, bytes spilled."""
    found = {}
    flags = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
            command = [nvcc, "-std=c++17", "-O3", *flags, "--threads=2", "--resource-usage", "-c", str(source)]
            command += [f"-I{ROOT / 'csrc' / part}" for part in ("", "include")] + ["-o", f"{folder}/object.o"]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            text = subprocess.run(["c++filt"], input=text.replace("'_Z", "' _Z"), capture_output=True, text=True).stdout
            pattern = r"entry function '\s*(.+?)' for '(sm_\w+)'(.+?)Used (\d+) registers"
            for name, architecture, between, registers in re.findall(pattern, text, re.DOTALL):
                spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill", between))
                short = name.replace("(anonymous namespace)::", "").removeprefix("void ").split("(")[0].strip()
                found[f"{architecture} {short}"] = (int(registers), spilled)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    record = parser.parse_args().record
    nvcc = compiler()
    if nvcc is None:
        print("no nvcc: registers and spills of the CUDA kernels are not checked")
        return 0
    found = report(nvcc)
    if record:
        lines = [f"# nvcc {version(nvcc)}: registers of each kernel; none spills"]
        lines += [f"{registers:3} {name}" for name, (registers, _) in sorted(found.items())]
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    first, *rows = TABLE.read_text(encoding="utf-8").splitlines()
    allowed = {name: int(registers) for registers, name in (row.split(maxsplit=1) for row in rows)}
    same = first.split()[2].rstrip(":") == version(nvcc)
    wrong = [f"{name} spills {spilled} bytes" for name, (_, spilled) in found.items() if spilled]
    if same:
        wrong += [f"{name} is in one of table and code only" for name in sorted(found.keys() ^ allowed.keys())]
        wrong += [
            f"{name} takes {registers} registers, the table says {allowed[name]}"
            for name, (registers, _) in found.items()
            if registers > allowed.get(name, 255)
        ]
    for line in wrong:
        print(line)
    print(f"{len(found)} kernels, {len(wrong)} wrong" + ("" if same else "; another compiler than the table's"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
