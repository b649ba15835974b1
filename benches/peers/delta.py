"""A night on which a hundredth of the curves changed, against reading the file.

    python delta.py --binary ../../target/release/sweepfit [--curves 1000000] [--points 32] [--repeat 5]

A generated sweep is fitted with `--fingerprint`. Then one curve in a hundred gets another last value, and `fit --since` goes
on from there. In turns with it the same columns are read by `pyarrow.parquet.read_table` in a warm process; our own bare
decode and grouping (`sweepfit bench`) comes last. Every row of an unchanged curve has to be the old one, bit by bit, and the others another.
"""

import json
import pathlib
import tempfile

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from compare import call, markdown
from yardstick import GENERATED, arguments, fresh, timed

COLUMNS = ["curve", "x", "y"]


def changed(sweep, out, count, points):
    """Writes the sweep with another last value in one curve of a hundred; which ones."""
    table = pyarrow.parquet.read_table(sweep)
    chosen = numpy.sort(numpy.random.default_rng(1).choice(count, count // 100, replace=False))
    y = table["y"].to_numpy().copy()
    y[chosen * points + points - 1] *= 1.01
    table = table.set_column(table.schema.get_field_index("y"), "y", pyarrow.array(y))
    pyarrow.parquet.write_table(table, out, compression="zstd", row_group_size=1_000_003)
    return chosen


def carried(then, now, chosen):
    """How many of the rows that had to stay are the old ones, bit by bit, and how many of the others are new."""
    then, now = (pyarrow.parquet.read_table(file) for file in (then, now))
    same = numpy.ones(then.num_rows, dtype=bool)
    for name in then.column_names:
        old, new = (table[name].combine_chunks() for table in (then, now))
        if pyarrow.types.is_floating(old.type):
            old, new = (column.fill_null(numpy.nan).to_numpy().view(numpy.uint64) for column in (old, new))
            same &= old == new
        elif not pyarrow.types.is_list(old.type):
            same &= pyarrow.compute.equal(old, new).fill_null(True).to_numpy(zero_copy_only=False)
    rest = numpy.ones(then.num_rows, dtype=bool)
    rest[chosen] = False
    return int(same[rest].sum()), int(rest.sum()), int((~same[chosen]).sum())


def delta(binary, count, points, repeat):
    with tempfile.TemporaryDirectory(prefix="sweepfit-delta-") as folder:
        folder = pathlib.Path(folder)
        first, second = folder / "first.parquet", folder / "second.parquet"
        then, now = folder / "then.parquet", folder / "now.parquet"
        recipe = [*GENERATED.split(), "--curves", count, "--points", points, "--row-group", 1_000_003]
        call([binary, "generate", *recipe, "-q", "-o", first])
        chosen = changed(first, second, count, points)
        flags = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve", "--backend", "cpu", "-q"]
        call([binary, "fit", first, *flags, "--fingerprint", "-o", then])
        read = lambda: pyarrow.parquet.read_table(second, columns=COLUMNS)
        read()
        reading, runs = [], []
        for _ in range(repeat):
            reading.append(timed(read))
            runs.append(fresh(now, [binary, "fit", second, *flags, "--since", then]))
        (wall, busy), (seconds, processor, peak) = min(reading), min(runs)
        # Last: what a large process gave back the system has to find anew for the next one.
        told = json.loads(call([binary, "bench", second, *flags, "--json", "--repeat", repeat]))
        decode = told["workloads"][0]["runs"][0]["stages"]["read"]
        same, of, anew = carried(then, now, chosen)
        row = lambda name, time, cpu, more="–": [name, f"{time:.2f} s", f"{time / wall:.2f}", cpu, more]
        lines = [
            row("pyarrow reads key, x, y", wall, f"{busy:.2f} s"),
            row("our bare decode and grouping", decode, "–"),
            row("`fit --since`, 1% changed (aim 1.3)", seconds, f"{processor:.2f} s", f"{peak / 2**20:.0f} MiB"),
        ]
        head = f"{count:,} curves × {points} points, {len(chosen):,} changed; {repeat} turns, the best of each:"
        tail = f"{same:,} of {of:,} rows carried over bit-identical, {anew:,} of {len(chosen):,} changed ones fitted anew."
        return "\n\n".join([head, markdown(["what", "wall", "× reading", "processor time", "peak memory"], lines), tail])


def main():
    a = arguments(__doc__, repeat=5)
    print(delta(a.binary, a.curves, a.points, a.repeat))


if __name__ == "__main__":
    main()
