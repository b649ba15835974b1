"""lmfit's minimize (MINPACK underneath, with standard errors), curve by curve in one process, from one sensible start."""

import time
import warnings

import lmfit
import numpy

from curves import guess, law


def run(x, y, space):
    """Fits every curve; (parameters, share that reports success, seconds)."""

    def residual(parameters, x, y):
        predicted = law(x, parameters["E"].value, parameters["A"].value, parameters["alpha"].value)
        if space == "log":
            return numpy.log(y) - numpy.log(numpy.maximum(predicted, 1e-300))
        return y - predicted

    found = numpy.full((len(x), 3), numpy.nan)
    succeeded = 0
    started = time.perf_counter()
    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for curve in range(len(x)):
            E, A, alpha = guess(x[curve], y[curve])
            result = lmfit.minimize(residual, lmfit.create_params(E=E, A=A, alpha=alpha), args=(x[curve], y[curve]))
            found[curve] = [result.params[name].value for name in ("E", "A", "alpha")]
            succeeded += result.success
    return found, succeeded / len(x), time.perf_counter() - started
