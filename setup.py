"""Builds diffence._core, the C core with its CPython boundary; everything else is declared in pyproject.toml."""

import glob
import os
import sysconfig

import numpy
from setuptools import Extension, setup

# Not -ffast-math or -Ofast, not even to link: they switch the whole Python process to flush-to-zero. Contraction is off
# because the kernels say themselves where a multiplication and an addition are fused.
COMPILE = ["-std=c11", "-O3", "-ffp-contract=off", "-pthread", "-fvisibility=hidden", "-D_GNU_SOURCE"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"]

strict = os.environ.get("DIFFENCE_WERROR", "") not in ("", "0")
# -isystem: the headers of Python and NumPy are not ours to hold to our warnings.
foreign = [numpy.get_include(), sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
sources = [name for folder in ("core", "kernels", "python") for name in sorted(glob.glob(f"csrc/{folder}/*.c"))]
depends = sorted(name for name in glob.glob("csrc/**/*", recursive=True) if name.endswith((".h", ".inc")))

setup(
    ext_modules=[
        Extension(
            "diffence._core",
            sources=sources,
            depends=depends,
            include_dirs=["csrc/include", "csrc"],
            extra_compile_args=[
                *COMPILE,
                *(f"-isystem{path}" for path in dict.fromkeys(foreign)),
                *(WARNINGS if strict else []),
            ],
            extra_link_args=["-pthread"],
            libraries=["m"],
        )
    ]
)
