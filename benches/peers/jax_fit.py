"""JAX by hand: variable projection over our grid of exponents, then damped Gauss-Newton steps; vmap over curves, jit, f64.

As a program: jax_fit.py SWEEP.parquet log|linear cpu|cuda CORES RESULT.npz. It holds itself to so many cores before JAX
starts its threads, which is why it is a process of its own.
"""

import os
import sys
import time


# The last step, as a share of every parameter, at which a curve is done; as ours.
STEP_TOLERANCE = 1e-9
MOST_STEPS = 60


def build(jax, space):
    """(x, y) of shape (curves, points) → parameters (curves, 3) and the size of the last step."""
    import jax.numpy as jnp

    exponents = jnp.geomspace(0.005, 8.0, 16)

    def solve(columns, target, diagonal):
        # Normal equations of unit columns by Cholesky, written out: batches of 3 x 3 in LAPACK are several times slower.
        a, b, c = columns
        ab, ac, bc = (a * b).sum(), (a * c).sum(), (b * c).sum()
        right = [(column * target).sum() for column in columns]
        l00 = jnp.sqrt(diagonal)
        l10, l20 = ab / l00, ac / l00
        l11 = jnp.sqrt(diagonal - l10**2)
        l21 = (bc - l10 * l20) / l11
        l22 = jnp.sqrt(diagonal - l20**2 - l21**2)
        f0 = right[0] / l00
        f1 = (right[1] - l10 * f0) / l11
        f2 = (right[2] - l20 * f0 - l21 * f1) / l22
        z2 = f2 / l22
        z1 = (f1 - l21 * z2) / l11
        return jnp.stack([(f0 - l10 * z1 - l20 * z2) / l00, z1, z2])

    def project(alpha, u, y, weight):
        # y ≈ E + B exp(-alpha u) by weighted least squares: centred sums, so that nothing cancels.
        basis = jnp.exp(-alpha * u)
        total = weight.sum()
        basis_mean, y_mean = (weight * basis).sum() / total, (weight * y).sum() / total
        centred = basis - basis_mean
        amplitude = (weight * centred * (y - y_mean)).sum() / (weight * centred**2).sum()
        floor = y_mean - amplitude * basis_mean
        residual = y - floor - amplitude * basis
        return (weight * residual**2).sum(), floor, amplitude

    def residual_of(z, u, y):
        predicted = z[0] + z[1] * jnp.exp(-z[2] * u)
        if space == "log":
            return jnp.log(y) - jnp.log(jnp.where(predicted > 0, predicted, jnp.nan))
        return y - predicted

    def one(x, y):
        log_x = jnp.log(x)
        u = log_x - log_x.min()
        # In log space the projection in linear space with weights 1/y² stands in.
        weight = 1 / y**2 if space == "log" else jnp.ones_like(y)
        squares, floors, amplitudes = jax.vmap(lambda alpha: project(alpha, u, y, weight))(exponents)
        best = jnp.argmin(squares)
        z = jnp.stack([floors[best], amplitudes[best], exponents[best]])

        def unfinished(state):
            _, _, _, size, steps = state
            return (size > STEP_TOLERANCE) & (steps < MOST_STEPS)

        def step(state):
            z, damping, objective, _, steps = state
            residual = residual_of(z, u, y)
            decay = jnp.exp(-z[2] * u)
            columns = [jnp.ones_like(u), decay, -z[1] * u * decay]
            if space == "log":
                predicted = z[0] + z[1] * decay
                columns = [column / predicted for column in columns]
            sizes = [jnp.sqrt((column**2).sum()) for column in columns]
            columns = [column / size for column, size in zip(columns, sizes)]
            move = solve(columns, residual, 1 + damping) / jnp.stack(sizes)
            trial = z + move
            lower = (residual_of(trial, u, y) ** 2).sum()
            better = lower <= objective
            size = jnp.max(jnp.abs(move) / jnp.maximum(jnp.abs(z), 1e-300))
            z = jnp.where(better, trial, z)
            objective = jnp.where(better, lower, objective)
            damping = jnp.where(better, damping * 0.1, jnp.maximum(damping, 1e-12) * 10)
            return z, damping, objective, size, steps + 1

        start = (z, 1e-3, jnp.nan_to_num((residual_of(z, u, y) ** 2).sum(), nan=jnp.inf), jnp.inf, 0)
        z, _, _, size, _ = jax.lax.while_loop(unfinished, step, start)
        # Back to x: exp(-alpha u) = exp(alpha log x_min) x^-alpha.
        return jnp.stack([z[0], z[1] * jnp.exp(z[2] * log_x.min()), z[2]]), size

    return jax.jit(jax.vmap(one))


def main(path, space, platform, cores, result):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    os.environ["JAX_PLATFORMS"] = platform
    import jax
    import numpy

    from curves import read

    jax.config.update("jax_enable_x64", True)
    x, y = read(path)
    # Batches that stay in the cache of a core are several times faster than all curves at once; a GPU wants all.
    batch = len(x) if platform == "cuda" else min(len(x), 4096)
    kept = len(x) // batch * batch
    fit = build(jax, space)
    jax.block_until_ready(fit(x[:batch], y[:batch]))  # compiles
    best, parameters, sizes = float("inf"), None, None
    for _ in range(3):
        started = time.perf_counter()
        found = [fit(x[i : i + batch], y[i : i + batch]) for i in range(0, kept, batch)]
        jax.block_until_ready(found)
        best = min(best, time.perf_counter() - started)
        parameters = numpy.concatenate([numpy.asarray(part[0]) for part in found])
        sizes = numpy.concatenate([numpy.asarray(part[1]) for part in found])
    device = jax.devices()[0]
    numpy.savez(result, parameters=parameters, sizes=sizes, seconds=best, device=f"{device.platform}: {device.device_kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
