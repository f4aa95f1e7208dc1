"""Declare the optional C core; everything else about the package stands in setup.cfg."""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "tracer/capture/_core.c"

core = Extension(
    "tracer.capture._core",
    [SOURCE],
    optional=True,  # without a compiler the same numbers come from torch operations
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
)
# A free-threaded Python has no stable ABI, and setuptools refuses to be asked for it there.
stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[core] if (Path(__file__).parent / SOURCE).exists() else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
