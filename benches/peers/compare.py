"""SciPy, lmfit and JAX beside sweepfit: the very same generated file, in one run, on the same cores.

    python compare.py --binary ../../target/release/sweepfit [--curves 20000] [--seed 1] [--space log,linear]

Prints a Markdown table per space. `ends` is the share of fits that the program itself calls finished; `reached` the share
whose sum of squares is at most 1e-6 above ours, `below` the share 1e-6 below ours, both computed here in the same way for
all. SciPy and lmfit fit a random sample of the curves, since they take one at a time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
import pandas

import curves
import lmfit_fit
import scipy_fit

HERE = pathlib.Path(__file__).parent
SAME = 1e-6


def call(command):
    """Standard output; what the program says on stderr goes through."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    return done.stdout


def markdown(header, lines):
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def thousands(rate):
    return f"{rate:,.0f}"


def has_cuda():
    """Asked in a process of its own: JAX may be started for one platform only once."""
    ask = "import jax, sys; sys.exit(0 if any(d.platform == 'gpu' for d in jax.devices()) else 1)"
    return subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL).returncode == 0


class Judge:
    """Our sums of squares on the whole file, by the formula of this folder."""

    def __init__(self, binary, sweep, space, folder):
        out = folder / "fits.parquet"
        flags = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve", "--space", space, "--backend", "cpu"]
        call([binary, "fit", sweep, *flags, "-q", "-o", out])
        self.x, self.y = curves.read(sweep)
        self.space = space
        self.fits = pandas.read_parquet(out)
        self.ours = curves.objective(self.x, self.y, self.fits[["E", "A", "alpha"]].to_numpy(), space)
        # Our own figure of the objective, against the one computed here.
        self.own = numpy.abs(self.ours / self.fits["objective"].to_numpy() - 1).max()

    def shares(self, parameters, index):
        theirs = curves.objective(self.x[index], self.y[index], parameters, self.space)
        ours = self.ours[index]
        return f"{(theirs <= ours * (1 + SAME)).mean():.2%}", f"{(theirs < ours * (1 - SAME)).mean():.2%}"


def compare(binary, curve_count, seed, space, sample):
    """The table of one space, and what stands below it."""
    with tempfile.TemporaryDirectory(prefix="sweepfit-peers-") as folder:
        folder = pathlib.Path(folder)
        sweep = folder / "sweep.parquet"
        cores = len(os.sched_getaffinity(0))
        threads = "1" if cores == 1 else f"1,{cores}"
        bench = [binary, "bench", "--law", "saturating_power", "--curves", curve_count, "--seed", seed, "--space", space]
        told = json.loads(call([*bench, "--threads", threads, "--json", "-q", "--keep", sweep]))
        judge = Judge(binary, sweep, space, folder)
        everything = numpy.arange(len(judge.x))
        lines, one_core = [], None

        def line(name, cores, count, rate, ends, shares):
            ratio = f"{one_core / rate:,.1f}" if cores == 1 and one_core else "–"
            lines.append([name, cores, thousands(count), thousands(rate), ends, *shares, ratio])

        workload = told["workloads"][0]
        for run in workload["runs"]:
            rate = run["fit"]["curves_per_second"]
            if run["backend"] == "cpu" and run["threads"] == 1:
                one_core = rate
            name = f"sweepfit, {run['adapter'] or 'cpu'}"
            shares = judge.shares(judge.fits[["E", "A", "alpha"]].to_numpy(), everything)
            line(name, run["threads"], workload["curves"], rate, f"{run['converged']:.2%}", shares)
        for platform, counts in [("cpu", sorted({1, cores})), ("cuda", [cores] if has_cuda() else [])]:
            for count in counts:
                result = folder / f"jax-{platform}-{count}.npz"
                call([sys.executable, HERE / "jax_fit.py", sweep, space, platform, count, result])
                found = numpy.load(result)
                fitted = everything[: len(found["parameters"])]
                ends = f"{(found['sizes'] <= 1e-9).mean():.2%}"
                rate = len(fitted) / float(found["seconds"])
                shares = judge.shares(found["parameters"], fitted)
                line(f"JAX by hand, {found['device']}", count, len(fitted), rate, ends, shares)
        chosen = numpy.sort(numpy.random.default_rng(seed).choice(everything, min(sample, len(everything)), replace=False))
        few = chosen[:: max(1, len(chosen) // 50)]
        x, y = judge.x, judge.y
        for name, index, run in [
            ("SciPy curve_fit, one start", chosen, lambda i: scipy_fit.run(x[i], y[i], space, scipy_fit.single_start)),
            ("lmfit minimize, one start", chosen, lambda i: lmfit_fit.run(x[i], y[i], space)),
            ("SciPy curve_fit, 16 starts", few, lambda i: scipy_fit.run(x[i], y[i], space, scipy_fit.multi_start)),
        ]:
            parameters, ends, seconds = run(index)
            line(name, 1, len(index), len(index) / seconds, f"{ends:.2%}", judge.shares(parameters, index))
        header = ["program", "cores", "curves", "fits/s", "ends", "reached", "below", "our one core is faster by"]
        note = (
            f"`saturating_power`, {space} space, {workload['rows'] // workload['curves']} points, 0.5% noise, seed {seed}; "
            f"our objectives agree with SciPy's formula to {judge.own:.1e}."
        )
        return markdown(header, lines) + "\n\n" + note


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE / "../../target/release/sweepfit")
    parser.add_argument("--curves", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--space", default="log,linear")
    parser.add_argument("--sample", type=int, default=200, help="curves that SciPy and lmfit fit")
    a = parser.parse_args()
    for space in a.space.split(","):
        print(compare(a.binary, a.curves, a.seed, space, a.sample), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
