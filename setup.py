"""Declare the optional C core and the TRACER switch; all else about the package is in setup.cfg."""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCE = "tracer/capture/_core.c"
SWITCH = "autograd_tracer.pth"
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tracer/capture").glob("*.h"))

THREADS = [] if os.name == "nt" else ["-pthread"]
# sqrt need not set errno, and both sides of a choice may be computed: several elements at once.
ARITHMETIC = [] if os.name == "nt" else ["-fno-math-errno", "-fno-trapping-math"]

core = Extension(
    "tracer.capture._core",
    [SOURCE],
    depends=HEADERS,
    optional=True,  # without a compiler the same core in Python records, only slower
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    extra_compile_args=[*THREADS, *ARITHMETIC],
    extra_link_args=THREADS,
)
# A free-threaded Python has no stable ABI, and setuptools refuses to be asked for it there.
stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildWithSwitch(build_py):
    """Puts the .pth file, by which Python looks at TRACER as it starts, where site-packages begin.

    So it is a file of the wheel, and uninstalling removes it. Where TRACER is not set it costs what
    reading a line costs. (`pip install -e` leaves it out; the Makefile copies it.)
    """

    def run(self):
        super().run()
        self.copy_file(str(ROOT / SWITCH), str(Path(self.build_lib) / SWITCH))

    def get_outputs(self, include_bytecode=1):
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib) / SWITCH)]


setup(
    cmdclass={"build_py": BuildWithSwitch},
    ext_modules=[core] if (ROOT / SOURCE).exists() else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
