"""How much memory a call takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20

PEAK = """
import sys, threading, numpy as np
from fedsec.robust import *
rows = np.random.default_rng(0).standard_normal((100, 1_000_000), dtype=np.float32)
def resident():
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: line.split()[1] for line in file if line.startswith(("Vm", "Rss"))}
Pipeline(TrimmedMean(20), (Nnm(20),))(rows[:, :40_000])
before = int(resident()["VmHWM"])
for rule in (Pipeline(TrimmedMean(20), (Nnm(20),)), Pipeline(MultiKrum(20), (Nnm(20),)), Meamed(20)):
    rule(rows)
print((int(resident()["VmHWM"]) - before) * 1024, int(resident()["VmHWM"]) * 1024)
"""

MAPPED = """
import sys, threading, time, numpy as np
from fedsec.robust import *
rows = np.memmap(sys.argv[1], np.float32, "r", shape=(60, 25_000_000))
peak, over = 0, False
def watch():
    global peak
    while not over:
        with open("/proc/self/status") as file:
            found = next(line for line in file if line.startswith("RssAnon"))
        peak = max(peak, int(found.split()[1]) * 1024)
        time.sleep(0.02)
watcher = threading.Thread(target=watch)
watcher.start()
try:
    found = Pipeline(TrimmedMean(10), (Nnm(10),))(rows)
finally:
    over = True
    watcher.join()
assert np.isfinite(found.vector).all()
print(peak)
"""


def run(program: str, *arguments: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_peak_memory_is_the_input_and_64_mib() -> None:
    more, total = run(PEAK)
    assert more <= 64 * MIB
    assert total < 1024 * MIB


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rows_may_be_a_file_larger_than_memory(tmp_path: Path) -> None:
    # Six gigabytes, most of them a hole in the file: reading it costs no disk.
    path = tmp_path / "rows.f32"
    with path.open("wb") as file:
        file.truncate(60 * 25_000_000 * 4)
        file.write(b"\x00\x00\x80\x3f" * 1_000_000)
    (peak,) = run(MAPPED, str(path))
    assert peak < 1024 * MIB
