"""Declare the optional C core; everything else about the package stands in setup.cfg."""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
SOURCE = "tracer/capture/_core.c"
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tracer/capture").glob("*.h"))

core = Extension(
    "tracer.capture._core",
    [SOURCE],
    depends=HEADERS,
    optional=True,  # without a compiler the same core in Python records, only slower
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
)
# A free-threaded Python has no stable ABI, and setuptools refuses to be asked for it there.
stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[core] if (ROOT / SOURCE).exists() else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
