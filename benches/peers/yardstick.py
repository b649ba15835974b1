"""The whole command against reading the file, and what it needs of memory and processors.

    python yardstick.py --binary ../../target/release/sweepfit [--curves 1000000] [--points 32] [--repeat 3]

The yardstick is `pyarrow.parquet.read_table` of key, x and y in a warm process, strings as they are, best of three. The
sweep has a string key, zstd, and row groups of 1,000,003 rows, so that curves straddle them. Beside it our own bare decode
and grouping of the same columns (`sweepfit bench FILE`). Fits are in log space with all columns; 200 random ones are
refitted by SciPy from our answer and from a guess, and must agree to 1e-6 in the sum of squares.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy
import pandas
import pyarrow.parquet

import curves
import scipy_fit
from compare import HERE, SAME, call, markdown

GENERATED = "--law saturating_power --x x=1e2:1e6 --param E=1.5:2.5 --param A=5:15 --param alpha=0.1:0.6 --noise 0.005 --seed 1"


# Linux counts the memory of the process that forked as the child's own peak, so a small process starts the program.
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024], sys.stdout)
sys.exit(status)
"""


def measured(command):
    """Wall seconds, processor seconds and peak bytes of one run (on Linux), while nothing written before is on its way to the disk."""
    os.sync()
    return json.loads(call([sys.executable, "-c", LAUNCHER, *command]))


def fresh(out, command):
    """The same of a run that writes `out` anew: on ext4 a file that replaces another has to reach the disk first."""
    out.unlink(missing_ok=True)
    return measured([*command, "-o", out])


def refitted(sweep, fits, rows, count=200):
    """Largest excess of our sum of squares over the lower of two SciPy fits on random curves, and of theirs over ours."""
    chosen = numpy.sort(numpy.random.default_rng(1).choice(len(fits), min(count, len(fits)), replace=False))
    keys = fits["curve"].iloc[chosen].tolist()
    table = pyarrow.parquet.read_table(sweep, columns=["curve", "x", "y"], filters=[("curve", "in", keys)]).to_pandas()
    worst = [0.0, 0.0]
    for key, curve in table.groupby("curve"):
        x, y = curve["x"].to_numpy(), curve["y"].to_numpy()
        answer = fits.loc[fits["curve"] == key, ["E", "A", "alpha"]].to_numpy()
        ours = curves.objective(x[None], y[None], answer, "log")[0]
        ends = [scipy_fit.fit_one(x, y, start, "log") for start in (answer[0], curves.guess(x, y))]
        theirs = min(end[2] for end in ends if end is not None) / 2
        worst = [max(worst[0], ours / theirs - 1), max(worst[1], theirs / ours - 1)]
    return worst


def yardstick(binary, count, points, repeat):
    with tempfile.TemporaryDirectory(prefix="sweepfit-yardstick-") as folder:
        folder = pathlib.Path(folder)
        sweep = folder / "sweep.parquet"
        recipe = [*GENERATED.split(), "--curves", count, "--points", points, "--row-group", 1_000_003]
        call([binary, "generate", *recipe, "-q", "-o", sweep])
        columns = ["curve", "x", "y"]
        read = lambda: pyarrow.parquet.read_table(sweep, columns=columns)
        rows = read().num_rows  # warm
        reading, lines, notes = [], [], []
        for law, aim in [("power", 1.5), ("saturating_power", 2.5)]:
            flags = ["--law", law, "--x", "x", "--y", "y", "--by", "curve", "--backend", "cpu"]
            out = folder / "fits.parquet"
            runs = []
            for _ in range(repeat):
                reading.append(timed(read))
                runs.append(fresh(out, [binary, "fit", sweep, *flags, "-q"]))
            seconds, busy, peak = min(runs)
            fits = pandas.read_parquet(out)
            converged = (fits["status"] == "converged").mean()
            name = f"`fit --law {law}` (aim {aim})"
            lines.append([name, seconds, f"{busy:.2f} s", f"{peak / 2**20:.0f} MiB", f"{converged:.3%}"])
            if law == "saturating_power":
                above, below = refitted(sweep, fits, rows)
                verdict = "agree" if max(above, below) <= SAME else "DO NOT agree"
                notes.append(
                    f"200 random curves and SciPy {verdict}: our sum of squares is at most {above:.1e} above the lower of two "
                    f"SciPy fits, SciPy's at most {below:.1e} above ours."
                )
        # Last: what a large process gave back the system has to find anew for the next one.
        told = json.loads(call([binary, "bench", sweep, *flags, "--json", "-q", "--repeat", repeat]))
        lines.insert(0, ["our bare decode and grouping", told["workloads"][0]["runs"][0]["stages"]["read"], "–", "–", "–"])
        best, busy = min(reading)
        lines.insert(0, ["pyarrow reads key, x, y", best, f"{busy:.2f} s", "–", "–"])
        lines = [[name, f"{seconds:.2f} s", f"{seconds / best:.2f}", *rest] for name, seconds, *rest in lines]
        header = ["what", "wall, best", "× reading", "processor time", "peak memory", "converged"]
        head = f"{count:,} curves × {points} points, {rows:,} rows, {sweep.stat().st_size / 1e6:.0f} MB, log space, every column:"
        return "\n\n".join([head, markdown(header, lines), *notes])


def timed(work):
    """Wall and processor seconds."""
    started, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - busy


def arguments(description, repeat):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE / "../../target/release/sweepfit")
    parser.add_argument("--curves", type=int, default=1_000_000)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=repeat)
    return parser.parse_args()


def main():
    a = arguments(__doc__, repeat=5)
    print(yardstick(a.binary, a.curves, a.points, a.repeat))


if __name__ == "__main__":
    main()
