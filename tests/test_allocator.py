"""What a process has freed it keeps: counted in page faults, by the system, beside one that does not."""

import platform
import subprocess
import sys

import pytest

from fedsec.allocator import large_pages

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="mallopt is glibc's",
)

_PROGRAM = """
import resource, sys
from fedsec.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def cycle():
    held = [b"x" * (2 << 20) for _ in range(3)]
for _ in range(3):
    cycle()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    cycle()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_what_was_freed_is_not_asked_for_again() -> None:
    pages = 20 * (6 << 20) // 4096
    assert faults("keep") < pages / 20
    assert faults("give back") > pages / 4  # else the test could not fail


def test_a_child_asks_for_large_pages_unless_the_operator_says_otherwise() -> None:
    assert large_pages({"PATH": "/bin"}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    own = {"GLIBC_TUNABLES": "glibc.malloc.check=3"}
    assert large_pages(own) == own
