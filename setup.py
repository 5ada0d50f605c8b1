"""Builds diffence._core, the C core, and where nvcc is found diffence._cuda; everything else is in pyproject.toml.

DIFFENCE_CUDA=0 leaves the CUDA engine out, =1 insists on it (else an nvcc that fails is a warning).
DIFFENCE_CUDA_ARCHITECTURES is a list such as "80 90a" (default: 80 and 90a, and PTX of 80 for what is newer).
DIFFENCE_WERROR=1 makes warnings errors.
"""

import glob
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Not -ffast-math or -Ofast, not even to link: they switch the whole Python process to flush-to-zero. Contraction is off
# because the kernels say themselves where a multiplication and an addition are fused.
COMPILE = ["-std=c11", "-O3", "-ffp-contract=off", "-pthread", "-fvisibility=hidden", "-D_GNU_SOURCE"]
# Without this the inner loop of the matrix products begins where the code before it happens to end: of builds that
# differ elsewhere, some were 10 to 12 % slower on Zen 3.
COMPILE += ["-falign-loops=64"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"]
INCLUDE = ["csrc/include", "csrc"]

strict = os.environ.get("DIFFENCE_WERROR", "") not in ("", "0")


def files(*patterns: str) -> list[str]:
    return [name for pattern in patterns for name in sorted(glob.glob(f"csrc/{pattern}"))]


def toolkit() -> tuple[Path, Path] | None:
    """nvcc and the folder of the static runtime, of one CUDA toolkit; None where there is none or none is wanted."""
    wanted = os.environ.get("DIFFENCE_CUDA", "")
    if wanted == "0":
        return None
    found = shutil.which("nvcc")
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), found and Path(found).resolve().parents[1]]
    for place in (Path(place) for place in (*named, "/usr/local/cuda") if place):
        for folder in ("lib64", "lib", "targets/x86_64-linux/lib"):
            if (place / "bin" / "nvcc").exists() and (place / folder / "libcudart_static.a").exists():
                return place / "bin" / "nvcc", place / folder
    if wanted:
        raise SystemExit("DIFFENCE_CUDA: no CUDA toolkit (nvcc, libcudart_static.a) in $CUDA_HOME or /usr/local/cuda")
    return None


def architectures() -> list[str]:
    names = os.environ.get("DIFFENCE_CUDA_ARCHITECTURES", "80 90a").split()
    flags = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    oldest = min(names, key=lambda name: int(name.rstrip("af")))
    return [*flags, f"-gencode=arch=compute_{oldest},code=compute_{oldest}"]


class Build(build_ext):
    """build_ext that knows .cu files."""

    def build_extensions(self) -> None:
        compile_c = self.compiler._compile

        def compile_any(obj, source, extension, cc_args, postargs, pp_opts):  # type: ignore[no-untyped-def]
            if extension == ".cu":
                includes = [option for option in pp_opts if option.startswith(("-I", "-D"))]
                command = [str(nvcc), "-c", source, "-o", obj, *NVCC, *includes]
                if subprocess.run(command, check=False).returncode:
                    raise CompileError(f"{shlex.join(command)} failed")
            else:
                compile_c(obj, source, extension, cc_args, postargs, pp_opts)

        self.compiler.src_extensions.append(".cu")
        self.compiler._compile = compile_any
        super().build_extensions()


# -isystem: the headers of Python and NumPy are not ours to hold to our warnings.
foreign = [numpy.get_include(), sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
common = {
    "depends": sorted(name for name in glob.glob("csrc/**/*", recursive=True) if name.endswith((".h", ".inc"))),
    "include_dirs": INCLUDE,
    "extra_compile_args": [
        *COMPILE,
        *(f"-isystem{path}" for path in dict.fromkeys(foreign)),
        *(WARNINGS if strict else []),
    ],
}
extensions = [
    Extension(
        "diffence._core",
        sources=files("core/*.c", "kernels/*.c", "python/*.c"),
        extra_link_args=["-pthread"],
        libraries=["m"],
        **common,
    )
]
cuda = toolkit()
if cuda is not None:
    nvcc, libraries = cuda
    host = "-fPIC,-fvisibility=hidden,-pthread,-Wall,-Wextra" if strict else "-fPIC,-fvisibility=hidden,-pthread"
    NVCC = ["-std=c++17", "-O3", "-Xcompiler", host, "--threads=2", *architectures()]
    NVCC += ["-Werror=all-warnings", "-Xcompiler=-Werror"] if strict else []
    boundary = [f"python/{name}.c" for name in ("arguments", "lock", "program", "types")]
    core = [f"core/{name}.c" for name in ("error", "merge", "plan", "program")]
    extensions.append(
        Extension(
            "diffence._cuda",
            sources=files("cuda/*.cu", "python/cuda/*.c", *boundary, *core),
            # The runtime is linked in and looks for the driver when it is first used: importing needs neither.
            library_dirs=[str(libraries)],
            libraries=["cudart_static", "rt", "dl", "m"],
            extra_link_args=["-pthread"],
            language="c++",
            optional=not strict and os.environ.get("DIFFENCE_CUDA", "") == "",
            **common,
        )
    )

setup(ext_modules=extensions, cmdclass={"build_ext": Build})
