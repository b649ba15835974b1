"""Measures everything that benches/README.md shows, and writes it there.

    python refresh.py --binary ../../target/release/sweepfit [--large] [SECTION …]

Sections: short, core, peers, yardstick, delta, robust, spots, ragged, scaling, growth; all of them without a name. Each stands in the
README between `<!-- begin SECTION -->` and `<!-- end SECTION -->`, with command, machine and date. `--large` adds 10 million
curves to `growth`.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import matplotlib

from compare import HERE, call, compare, markdown, thousands
from delta import delta
from yardstick import yardstick

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402 (after the choice of what it draws with)

README = HERE.parent / "README.md"


def machine(binary):
    told = json.loads(call([binary, "bench", "--law", "power", "--curves", "10", "--repeat", "1", "--json", "-q"]))["machine"]
    model = platform.processor() or told["architecture"]
    try:
        names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        model = names[0] if names else model
    except OSError:
        pass
    adapters = ", ".join(told["adapters"]) or "no hardware GPU"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {told['instruction_set']}, {adapters}"


def code(text):
    return f"```\n{text.rstrip()}\n```"


def bench(binary, *arguments):
    """What a bench prints, under its command."""
    command = ["sweepfit", "bench", *arguments]
    return code("$ " + " ".join(map(str, command)) + "\n" + call([binary, *command[1:], "-q"]))


def short(a):
    return bench(a.binary)


def core(a):
    """The kernel on one core, curves per second of pack to judge."""
    lines = []
    cases = [("power", "log", "–"), ("saturating_power", "log", "0.6 million"), ("saturating_power", "linear", "1 million")]
    for law, space, aim in cases:
        flags = ["--law", law, "--space", space, "--threads", "1", "--backend", "cpu", "--repeat", "5", "--json", "-q"]
        run = json.loads(call([a.binary, "bench", *flags]))["workloads"][0]["runs"][0]

        def per_second(*names):
            # A closed form needs no refinement.
            seconds = sum(run["stages"][name] for name in names)
            return thousands(100_000 / seconds) if seconds > 0 else "–"

        rates = [per_second(name) for name in ("pack", "search", "refine", "judge")]
        inner = per_second("search", "refine", "judge")
        lines.append(
            [f"`{law}`, {space} space", thousands(run["fit"]["curves_per_second"]), inner, *rates, f"{run['converged']:.2%}", aim]
        )
    header = ["one core", "pack to judge", "search to judge", "pack", "search", "refine", "judge", "converged", "aim"]
    return "Curves per second, 100,000 curves × 32 points, best of five:\n\n" + markdown(header, lines)


def peers(a):
    return "\n\n".join(compare(a.binary, 20_000, 1, space, 200) for space in ("log", "linear"))


def whole(a):
    return yardstick(a.binary, 1_000_000, 32, 9)


def night(a):
    return delta(a.binary, 1_000_000, 32, 9)


def robust(a):
    return bench(a.binary, "--workload", "W3", "--points", "240", "--curves", "2000")


def spots(a):
    """Gpufit's workload, searched, and from starts within a tenth of the truth as Gpufit has it."""
    starts = [part for name, value in [("x0", 2), ("y0", 2), ("s", 1)] for part in ("--start", f"{name}={value}")]
    cores = ["--threads", "1"]
    searched = bench(a.binary, "--workload", "W1", *cores)
    return searched + "\n\n" + bench(a.binary, "--workload", "W1", "--curves", "100000", *starts, *cores)


def ragged(a):
    return bench(a.binary, "--workload", "W7", "--repeat", "2")


def scaling(a):
    plot = HERE.parent / "scaling.svg"
    adapter = ["--adapter", a.adapter] if a.adapter else []
    told = bench(a.binary, "--scaling", *adapter, "--plot", "scaling.svg").replace(str(plot), "scaling.svg")
    return told + "\n\n![fits per second against curves](scaling.svg)"


def growth(a):
    """Cost against the number of curves and of points."""
    sizes = [10**4, 10**5, 10**6] + ([10**7] if a.large else [])
    by_curves = [(size, 32) for size in sizes]
    by_points = [(4 * 10**6 // points, points) for points in (8, 32, 128, 1000)]
    lines, rows_per_second = [], {}
    for curves, points in by_curves + by_points:
        flags = ["--law", "saturating_power", "--curves", curves, "--points", points, "--backend", "cpu", "--json", "-q"]
        workload = json.loads(call([a.binary, "bench", *flags, "--repeat", "2" if curves >= 10**6 else "3"]))["workloads"][0]
        run = workload["runs"][0]
        rows_per_second[curves, points] = run["whole"]["rows_per_second"]
        lines.append(
            [thousands(curves), points, f"{run['whole']['seconds']:.2f} s", thousands(run["whole"]["curves_per_second"]),
             thousands(run["whole"]["rows_per_second"]), thousands(run["fit"]["curves_per_second"]), f"{run['converged']:.2%}"]
        )
    header = ["curves", "points", "whole", "curves/s", "rows/s", "fits/s, pack to judge", "converged"]
    draw_growth(rows_per_second, by_curves, by_points)
    table = "`saturating_power`, log space, from file to file on all cores:\n\n" + markdown(header, lines)
    return table + "\n\n![rows per second against curves and against points](growth.svg)"


def draw_growth(rows_per_second, by_curves, by_points):
    """Two panels: a level line says that cost grows as the data do."""
    pyplot.rcParams["svg.hashsalt"] = "growth"
    figure, panels = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for panel, cases, axis, label in [
        (panels[0], by_curves, 0, "curves of 32 points"),
        (panels[1], by_points, 1, "points of a curve, 4 million rows"),
    ]:
        panel.loglog([case[axis] for case in cases], [rows_per_second[case] for case in cases], "o-")
        panel.set_xlabel(label)
        panel.grid(True, which="both", alpha=0.3)
    panels[0].set_ylabel("rows per second")
    # Three orders of magnitude, so that what is level looks level.
    panels[0].set_ylim(1e6, 1e9)
    figure.savefig("growth.svg", metadata={"Date": None})
    pyplot.close(figure)


SECTIONS = dict(short=short, core=core, peers=peers, yardstick=whole, delta=night, robust=robust, spots=spots, ragged=ragged, scaling=scaling, growth=growth)


def replace(text, name, body):
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{README}: has no place for {name}: add <!-- begin {name} --> and <!-- end {name} -->")
    return pattern.sub(lambda found: found[1] + body + "\n" + found[2], text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE / "../../target/release/sweepfit")
    parser.add_argument("--adapter", help="a software adapter for `scaling`, beside the hardware")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    parser.add_argument("--large", action="store_true")
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    a = parser.parse_args()
    unknown = [name for name in a.sections if name not in SECTIONS]
    if unknown:
        sys.exit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    a.binary = a.binary.resolve()
    # Drawings are written beside the README.
    os.chdir(HERE.parent)
    where = machine(a.binary)
    for name in a.sections or SECTIONS:
        print(name, file=sys.stderr, flush=True)
        body = f"{SECTIONS[name](a)}\n\n{where}; {a.date}; `refresh.py {name}`."
        README.write_text(replace(README.read_text(), name, body))


if __name__ == "__main__":
    main()
