"""SciPy's curve_fit, curve by curve in one process: from one sensible start, and globally from a grid of exponents."""

import time
import warnings

import numpy
import scipy.optimize

from curves import guess, law

# The cells of our default grid for a decay.
EXPONENTS = numpy.geomspace(0.005, 8, 16)


def fit_one(x, y, start, space):
    """Parameters and their standard errors; None where MINPACK gives up."""

    def logarithm(x, E, A, alpha):
        return numpy.log(numpy.maximum(law(x, E, A, alpha), 1e-300))

    function, target = (logarithm, numpy.log(y)) if space == "log" else (law, y)
    try:
        parameters, covariance = scipy.optimize.curve_fit(function, x, target, p0=start)
    except RuntimeError:
        return None
    return parameters, numpy.sqrt(numpy.diag(covariance)), ((function(x, *parameters) - target) ** 2).sum()


def single_start(x, y, space):
    return fit_one(x, y, guess(x, y), space)


def multi_start(x, y, space):
    """Every exponent of the grid with the floor and amplitude that fit best in linear space; the lowest end wins."""
    ends = []
    for alpha in EXPONENTS:
        basis = numpy.column_stack([numpy.ones_like(x), x**-alpha])
        (E, A), *_ = numpy.linalg.lstsq(basis, y)
        end = fit_one(x, y, (E, A, alpha), space)
        if end is not None:
            ends.append(end)
    return min(ends, key=lambda end: end[2], default=None)


def run(x, y, space, method):
    """Fits every curve; (parameters, NaN where there are none; share that ended without an error; seconds)."""
    parameters = numpy.full((len(x), 3), numpy.nan)
    started = time.perf_counter()
    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for curve in range(len(x)):
            end = method(x[curve], y[curve], space)
            if end is not None:
                parameters[curve] = end[0]
    seconds = time.perf_counter() - started
    return parameters, numpy.isfinite(parameters).all(axis=1).mean(), seconds
