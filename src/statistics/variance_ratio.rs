//! Tests of sums of squares, and of many at once: Fisher's F, chi-square, Benjamini and Hochberg's adjustment.
//!
//! In: statistics and their degrees of freedom, or the p-values of a family of tests. Out: tail probabilities to about ten
//! digits, by continued fractions of the incomplete beta and gamma functions (DLMF 8.17.22 and 8.9.2); adjusted p-values.

use super::student::continued_fraction;

/// P(F > f) with `above` and `below` degrees of freedom; NaN where there are none.
pub fn f_upper_tail(f: f64, above: f64, below: f64) -> f64 {
    if !(above > 0.0 && below > 0.0 && f >= 0.0) {
        return f64::NAN;
    }
    if f.is_infinite() {
        return 0.0;
    }
    // P(F > f) = I_x(below/2, above/2), x = below/(below + above f).
    let (a, b) = (0.5 * below, 0.5 * above);
    let ratio = above * f / below;
    let (x, y) = (1.0 / (1.0 + ratio), ratio / (1.0 + ratio));
    let front = (-a * ratio.ln_1p() + b * y.ln() + log_gamma(a + b) - log_gamma(a) - log_gamma(b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(a, b, x) / a
    } else {
        1.0 - front * continued_fraction(b, a, y) / b
    }
}

/// P(χ² > x) with `freedom` degrees of freedom; NaN where there are none.
pub fn chi_square_upper_tail(x: f64, freedom: f64) -> f64 {
    if !(x >= 0.0 && freedom > 0.0) {
        return f64::NAN;
    }
    let (a, x) = (0.5 * freedom, 0.5 * x);
    if x == 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - log_gamma(a)).exp();
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = term;
        let mut n = a;
        while term > sum * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return 1.0 - front * sum;
    }
    // Lentz's method.
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (f64::MAX, 1.0 / b);
    let mut fraction = d;
    for i in 1..100_000 {
        let i = f64::from(i);
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        fraction *= c * d;
        if (c * d - 1.0).abs() < 1e-16 {
            break;
        }
    }
    front * fraction
}

/// log Γ(z), z > 0: Stirling's series where it has converged, the recurrence below.
fn log_gamma(z: f64) -> f64 {
    let (mut z, mut product) = (z, 1.0);
    while z < 15.0 {
        product *= z;
        z += 1.0;
    }
    let inverse = 1.0 / z;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (z - 0.5) * z.ln() - z + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - product.ln()
}

/// The p-value of a fit's prediction of new points (Chow 1960): how often `more` true points would raise the objective, half
/// the weighted sum of squares, from `before` to `after` or beyond, when both are minima of one law. `freedom` is what the
/// first fit had; `known` says that its weights are those of known standard deviations.
pub fn prediction_p(before: f64, after: f64, freedom: f64, more: f64, known: bool) -> f64 {
    // What rounding leaves of a perfect fit is no scatter to judge by.
    let rounding = (freedom + more) * (64.0 * f64::EPSILON).powi(2);
    let rise = (after - before).max(0.0);
    if known {
        return chi_square_upper_tail(2.0 * rise, more);
    }
    f_upper_tail(rise / more / (before.max(rounding) / freedom), more, freedom)
}

/// The smallest rate of false discoveries at which each of these tests is one (Benjamini and Hochberg 1995).
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut least = 1.0f64;
    for (rank, &at) in order.iter().enumerate().rev() {
        least = least.min(p_values[at] * p_values.len() as f64 / (rank + 1) as f64);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::student::two_sided_p;

    /// SciPy 1.17.1's `f.sf(f, above, below)`.
    const F: [(f64, f64, f64, f64); 8] = [
        (0.1, 1.0, 3.0, 0.7725549111200868),
        (1.0, 2.0, 10.0, 0.4018775720164609),
        (4.2, 3.0, 5.0, 0.07818406187648883),
        (12.0, 8.0, 40.0, 1.5519861017342836e-08),
        (1.01, 200.0, 3000.0, 0.4496369710015252),
        (30.0, 2.0, 2.0, 0.03225806451612903),
        (250.0, 1.0, 20.0, 9.074157445423696e-13),
        (3.0, 5.0, 100000.0, 0.010366183777032533),
    ];
    /// SciPy's `chi2.sf(x, freedom)`.
    const CHI_SQUARE: [(f64, f64, f64); 7] = [
        (0.1, 1.0, 0.7518296340458492),
        (1.0, 2.0, 0.6065306597126334),
        (5.0, 5.0, 0.4158801869955079),
        (12.0, 3.0, 0.007383160505359769),
        (250.0, 200.0, 0.009379131668826098),
        (150.0, 200.0, 0.996647558501813),
        (100.0, 4.0, 9.836624224615988e-21),
    ];
    /// What the module promises.
    const AGREEMENT: f64 = 1e-10;

    #[test]
    fn tails_are_those_of_scipy() {
        for (f, above, below, expected) in F {
            let found = f_upper_tail(f, above, below);
            assert!((found / expected - 1.0).abs() < AGREEMENT, "F {f} {above} {below}: {found}, SciPy {expected}");
        }
        for (x, freedom, expected) in CHI_SQUARE {
            let found = chi_square_upper_tail(x, freedom);
            assert!((found / expected - 1.0).abs() < AGREEMENT, "chi² {x} {freedom}: {found}, SciPy {expected}");
        }
        assert!(f_upper_tail(1.0, 0.0, 3.0).is_nan() && chi_square_upper_tail(1.0, 0.0).is_nan());
    }

    #[test]
    fn one_new_point_is_tested_as_by_students_t() {
        for (t, freedom) in [(0.3, 2.0), (2.1, 7.0), (9.0, 30.0)] {
            let (p, expected) = (f_upper_tail(t * t, 1.0, freedom), two_sided_p(t, freedom));
            assert!((p / expected - 1.0).abs() < AGREEMENT, "{t} {freedom}: {p} and {expected}");
        }
    }

    #[test]
    fn adjusted_p_values_are_those_of_the_paper() {
        // The 15 p-values of Benjamini and Hochberg's example: at a rate of 0.05 the four smallest are discoveries.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let shuffled: Vec<f64> = (0..15).map(|i| p[i * 4 % 15]).collect();
        let found = adjusted(&shuffled);
        for i in 0..15 {
            assert_eq!(found[i] <= 0.05, i * 4 % 15 < 4, "p = {}: {}", shuffled[i], found[i]);
        }
        assert!((found[0] - 0.0015).abs() < 1e-15, "{}", found[0]);
        assert_eq!(adjusted(&[]), Vec::<f64>::new());
    }
}
