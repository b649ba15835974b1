//! Student's t distribution: tail probabilities and quantiles.
//!
//! In: a value or a level, and the degrees of freedom ν. Out: probabilities and quantiles to about 1e-12 + ν·1e-16. Tails by
//! the continued fraction of the incomplete beta function (Lentz's method), quantiles by Newton steps from zero, which
//! climb without overshooting because the tail is convex.

use std::collections::HashMap;

/// P(T > t) for t ≥ 0 with `freedom` > 0 degrees of freedom; NaN elsewhere.
pub fn upper_tail(t: f64, freedom: f64) -> f64 {
    if !(t >= 0.0 && freedom > 0.0) {
        return f64::NAN;
    }
    if t.is_infinite() {
        return 0.0;
    }
    // P(T > t) = I_x(ν/2, 1/2)/2 with x = ν/(ν + t²).
    let (a, square) = (0.5 * freedom, t * t);
    let (x, y) = (freedom / (freedom + square), square / (freedom + square));
    // x^a y^b / B(a, b)
    let log_x = -(square / freedom).ln_1p();
    let front = (a * log_x + 0.5 * y.ln() + log_gamma_step(a) - 0.5 * std::f64::consts::PI.ln()).exp();
    let below = x < (a + 1.0) / (a + 2.5);
    let beta = if below {
        front * continued_fraction(a, 0.5, x) / a
    } else {
        1.0 - front * continued_fraction(0.5, a, y) / 0.5
    };
    0.5 * beta
}

/// P(|T| > |t|): the p-value of a two-sided test; NaN without degrees of freedom.
pub fn two_sided_p(t: f64, freedom: f64) -> f64 {
    2.0 * upper_tail(t.abs(), freedom)
}

/// The t with P(|T| ≤ t) = `level`, 0 < level < 1; NaN without degrees of freedom.
pub fn two_sided_quantile(level: f64, freedom: f64) -> f64 {
    if !(freedom > 0.0 && level > 0.0 && level < 1.0) {
        return f64::NAN;
    }
    let tail = 0.5 * (1.0 - level);
    let log_peak = log_gamma_step(0.5 * freedom) - 0.5 * (std::f64::consts::PI * freedom).ln();
    let mut t = 0.0;
    // A tail of one degree of freedom at most doubles t in each step; a hundred steps reach beyond any level in f64.
    for _ in 0..200 {
        let density = (log_peak - 0.5 * (freedom + 1.0) * (t * t / freedom).ln_1p()).exp();
        let step = (upper_tail(t, freedom) - tail) / density;
        t += step;
        if step <= 1e-15 * t {
            break;
        }
    }
    t
}

/// Quantiles of one level, each computed once.
#[derive(Debug, Clone)]
pub struct Quantiles {
    level: f64,
    known: HashMap<u64, f64>,
}

impl Quantiles {
    /// For two-sided intervals of `level`.
    pub fn new(level: f64) -> Quantiles {
        Quantiles { level, known: HashMap::new() }
    }

    /// Half the width of the interval in standard errors; NaN without degrees of freedom.
    pub fn two_sided(&mut self, freedom: f64) -> f64 {
        *self.known.entry(freedom.to_bits()).or_insert_with(|| two_sided_quantile(self.level, freedom))
    }
}

/// log Γ(z + ½) − log Γ(z), z > 0: Stirling's series where it has converged, the recurrence below.
fn log_gamma_step(z: f64) -> f64 {
    let (mut z, mut sum) = (z, 0.0);
    while z < 30.0 {
        // Γ(z+½)/Γ(z) = Γ(z+1½)/Γ(z+1) · z/(z+½)
        sum += (z / (z + 0.5)).ln();
        z += 1.0;
    }
    let inverse = 1.0 / z;
    let square = inverse * inverse;
    let series = inverse * (-1.0 / 8.0 + square * (1.0 / 192.0 + square * (-1.0 / 640.0 + square * 17.0 / 14336.0)));
    sum + 0.5 * z.ln() + series
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22).
pub(super) fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    // Converges in about sqrt(max(a, b)) terms.
    for m in 1..1_000_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SciPy 1.17.1's `t.ppf((1 + level)/2, freedom)` beside closed forms of one and two degrees of freedom.
    const QUANTILES: [(f64, f64, f64); 10] = [
        (0.95, 3.0, 3.1824463052837078),
        (0.95, 5.0, 2.5705818356363146),
        (0.95, 29.0, 2.045229642132703),
        (0.95, 237.0, 1.9700240104035507),
        (0.99, 4.0, 4.604094871349992),
        (0.5, 7.0, 0.7111417780817866),
        (0.9999, 12.0, 5.694465793270642),
        (0.95, 1000000.0, 1.959966356814107),
        (0.8, 60.0, 1.295821093515731),
        (0.95, 1.5, 6.016663104427929),
    ];
    /// SciPy's `t.sf`.
    const TAILS: [(f64, f64, f64); 6] = [
        (0.1, 3.0, 0.46332617440040297),
        (1.0, 10.0, 0.17044656615103),
        (5.0, 5.0, 0.0020523579900266617),
        (12.0, 40.0, 3.91208565212799e-15),
        (2.0, 100000.0, 0.022751481728753256),
        (30.0, 2.0, 0.0005546313409798295),
    ];
    /// What closed forms leave of 16 digits.
    const AGREEMENT: f64 = 1e-13;

    /// What the module promises.
    fn promised(freedom: f64) -> f64 {
        1e-12 + 1e-16 * freedom
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        for (level, freedom, expected) in QUANTILES {
            let found = two_sided_quantile(level, freedom);
            assert!((found / expected - 1.0).abs() < promised(freedom), "{level} {freedom}: {found}, SciPy {expected}");
        }
    }

    #[test]
    fn tails_are_those_of_scipy() {
        for (t, freedom, expected) in TAILS {
            let found = upper_tail(t, freedom);
            assert!((found / expected - 1.0).abs() < promised(freedom), "{t} {freedom}: {found}, SciPy {expected}");
        }
    }

    #[test]
    fn one_and_two_degrees_of_freedom_have_closed_forms() {
        for level in [0.5, 0.9, 0.95, 0.999] {
            let cauchy = (std::f64::consts::FRAC_PI_2 * level).tan();
            let two = level * (2.0 / (1.0 - level * level)).sqrt();
            for (freedom, expected) in [(1.0, cauchy), (2.0, two)] {
                let found = two_sided_quantile(level, freedom);
                assert!((found / expected - 1.0).abs() < AGREEMENT, "{level} {freedom}: {found}, exactly {expected}");
            }
        }
    }

    #[test]
    fn nothing_is_said_without_degrees_of_freedom() {
        assert!(two_sided_quantile(0.95, 0.0).is_nan() && upper_tail(1.0, -1.0).is_nan());
    }
}
