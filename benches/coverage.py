#!/usr/bin/env python3
"""How often 95% intervals hold the truth: generated curves, every kind of interval, one table.

Usage: python3 benches/coverage.py [--binary target/release/sweepfit] [--curves 2000] [--replicates 200] [--only TEXT] [LAW,POINTS ...]

Each row is a law with so many points and normal errors of the logarithm; each cell the coverage of the worst-covered
parameter (its name), then that of the exponent. Needs pandas and pyarrow. With 2,000 curves a coverage is known to 0.005.
"""

import argparse
import pathlib
import subprocess
import tempfile

import pandas

# Law -> inputs, truths, noise, name of the exponent, where replicates start.
LAWS = {
    "saturating_power": (
        "--x x=1:1e4 --param E=1.5:2.5 --param A=5:15 --param alpha=0.2:0.6 --noise 0.02", "x", "search"),
    "chinchilla": (
        "--x N=1e7:1e10 --x D=1e9:1e12 --param E=1.5:2 --param A=300:500 --param B=300:3000 --param alpha=0.3:0.4 "
        "--param beta=0.3:0.4 --noise 0.01", "N,D", "search"),
    "broken_power": (
        "--x x=1:1e4 --param A=1:5 --param x_b=30:300:log --param alpha=0.05:0.2 --param eta=0.4:0.8 "
        "--param Delta=0.1:0.5 --noise 0.01", "x", "best"),
}
ROWS = ["saturating_power,8", "saturating_power,16", "saturating_power,32", "saturating_power,64", "chinchilla,60",
        "broken_power,40"]
SCHEMES = ["pairs", "fractional", "wild", "residual"]


def kinds(replicates, start):
    yield "t", "--level 0.95"
    yield "t, log", "--level 0.95 --intervals log"
    yield "t, robust", "--level 0.95 --se robust"
    for scheme in SCHEMES:
        bootstrap = f"--bootstrap {replicates}:{scheme} --bootstrap-start {start} --seed 1"
        yield scheme, bootstrap
        if scheme in ("pairs", "residual"):
            yield f"{scheme}, expanded", f"{bootstrap} --intervals expanded"


def cell(fits, truth):
    names = [name[:-3] for name in fits.columns if name.endswith("_lo")]
    shares = {}
    for name in names:
        known = fits[f"{name}_lo"].notna()
        inside = (fits[f"{name}_lo"] <= truth[name]) & (truth[name] <= fits[f"{name}_hi"])
        shares[name] = inside[known].mean()
    worst = min(shares, key=shares.get)
    return f"{shares[worst]:.3f} ({worst}), {shares['alpha']:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/sweepfit")
    parser.add_argument("--curves", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--only", default="", help="columns whose name holds this")
    parser.add_argument("rows", nargs="*", default=ROWS)
    options = parser.parse_args()
    for at, row in enumerate(options.rows):
        law, points = row.split(",")
        recipe, x, start = LAWS[law]
        asked = [kind for kind in kinds(options.replicates, start) if options.only in kind[0]]
        if at == 0:
            print("| law, points | " + " | ".join(name for name, _ in asked) + " |")
            print("|---" * (len(asked) + 1) + "|")
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)

            def sweepfit(line):
                subprocess.run([options.binary, *line.split(), "-q"], check=True)

            sweepfit(f"generate --law {law} --points {points} --curves {options.curves} {recipe} --seed 11 "
                     f"--truth {folder}/truth.parquet -o {folder}/sweep.parquet")
            truth = pandas.read_parquet(folder / "truth.parquet")
            cells = []
            for _, flags in asked:
                sweepfit(f"fit {folder}/sweep.parquet --law {law} --x {x} --y y --by curve {flags} -o {folder}/f.parquet")
                fits = pandas.read_parquet(folder / "f.parquet")
                assert (fits.curve == truth.curve).all()
                cells.append(cell(fits, truth))
            print(f"| `{law}`, {points} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
