"""The generated sweep as every peer takes it, and the objective by which all are judged.

A sweep here has curves of one length, so that it is a matrix: x and y of shape (curves, points).
"""

import numpy
import pyarrow.parquet


def read(path):
    """x, y of shape (curves, points); the rows of a curve lie together."""
    table = pyarrow.parquet.read_table(path, columns=["curve", "x", "y"])
    curve = table["curve"].to_numpy(zero_copy_only=False)
    starts = numpy.flatnonzero(numpy.r_[True, curve[1:] != curve[:-1]])
    lengths = numpy.diff(numpy.r_[starts, len(curve)])
    if len(set(lengths)) != 1:
        raise SystemExit(f"{path}: curves of {lengths.min()} to {lengths.max()} points; the peers here take one length")
    shape = (len(starts), lengths[0])
    return table["x"].to_numpy().reshape(shape), table["y"].to_numpy().reshape(shape)


def law(x, E, A, alpha):
    """E + A x^-alpha."""
    return E + A * x**-alpha


def objective(x, y, parameters, space):
    """Half the sum of squared residuals of each curve; infinite where the logarithm has no meaning. parameters: (curves, 3)."""
    with numpy.errstate(all="ignore"):
        predicted = law(x, *(parameters[:, [j]] for j in range(3)))
        residual = numpy.log(y) - numpy.log(predicted) if space == "log" else y - predicted
    return numpy.nan_to_num(0.5 * (residual**2).sum(axis=1), nan=numpy.inf)


def guess(x, y):
    """A sensible start: a floor below the data, and a straight line through what is left, log against log."""
    floor = y.min() - 0.1 * (y.max() - y.min())
    slope, intercept = numpy.polyfit(numpy.log(x), numpy.log(y - floor), 1)
    return floor, numpy.exp(intercept), -slope
