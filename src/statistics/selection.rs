//! The tournament: which of several laws a curve follows, and how much speaks for each.
//!
//! In: a score of every law on every curve, the lowest being the best: an information criterion, or the error on points that
//! were held out. Out: the best law of each curve and the laws' weights. Also here: which points are held out.

use super::bootstrap::{fitted_values, optima};
use crate::curves::CurveBatch;
use crate::fit::judge::{Verdicts, information_criteria};
use crate::fit::pack::Packed;
use crate::fit::{Space, Status};

/// How laws are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criterion {
    /// Akaike's, corrected for few points (Hurvich and Tsai 1989).
    Aicc,
    /// Schwarz's.
    Bic,
    /// The error on the share of each curve's points that lie at the largest scale, by a fit to the others.
    Holdout { fraction: f64 },
}

impl Criterion {
    /// As the command line calls it.
    pub fn name(self) -> String {
        match self {
            Criterion::Aicc => "aicc".to_string(),
            Criterion::Bic => "bic".to_string(),
            Criterion::Holdout { fraction } => format!("holdout:{fraction}"),
        }
    }
}

/// What decides between laws of equal score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contestant {
    /// Laws of one family are one curve in several spellings and count once.
    pub family: String,
    /// Free parameters.
    pub parameters: usize,
    /// Position in the catalogue; behind it for typed formulas.
    pub place: usize,
}

/// How a law does on a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The lower, the better; NaN where the law cannot be compared.
    pub value: f64,
    /// The points that it rests on: scores on different points cannot be compared.
    pub points: u32,
}

/// The outcome, law k on curve i at `i * laws + k`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub best: Vec<bool>,
    /// Akaike weights, or under holdout weights inverse to the squared error (Bates and Granger 1969); each curve's sum is 1.
    /// NaN for a law that cannot be compared and for all but one law of a family.
    pub evidence: Vec<f64>,
    /// Curves whose laws used different points, so that none is best.
    pub incomparable: u64,
}

/// Information criteria closer than this are equal; so are errors closer than this share.
const TIE: f64 = 1e-6;

/// Ranks the laws of every curve; `scores` holds one list per law.
pub fn rank(criterion: Criterion, contestants: &[Contestant], scores: &[Vec<Score>]) -> Ranking {
    let (laws, curves) = (contestants.len(), scores.first().map_or(0, Vec::len));
    let mut ranking =
        Ranking { best: vec![false; curves * laws], evidence: vec![f64::NAN; curves * laws], incomparable: 0 };
    for curve in 0..curves {
        let value = |law: usize| scores[law][curve].value;
        let mut ranked: Vec<usize> = (0..laws).filter(|&law| !value(law).is_nan()).collect();
        if ranked.iter().any(|&law| scores[law][curve].points != scores[ranked[0]][curve].points) {
            ranking.incomparable += 1;
            continue;
        }
        let equal = |a: f64, b: f64| match criterion {
            Criterion::Holdout { .. } => (a - b).abs() <= TIE * b.abs(),
            _ => (a - b).abs() <= TIE,
        };
        let winner = |among: &[usize]| {
            let lowest = among.iter().map(|&law| value(law)).fold(f64::INFINITY, f64::min);
            let level = among.iter().copied().filter(|&law| equal(value(law), lowest));
            level.min_by_key(|&law| (contestants[law].parameters, contestants[law].place, law))
        };
        // Of each family the member that would win it.
        let spokesman = |&law: &usize| {
            let family: Vec<usize> =
                ranked.iter().copied().filter(|&other| contestants[other].family == contestants[law].family).collect();
            winner(&family) == Some(law)
        };
        let kept: Vec<bool> = ranked.iter().map(spokesman).collect();
        let mut keep = kept.iter();
        ranked.retain(|_| *keep.next().expect("one per law"));
        let Some(best) = winner(&ranked) else { continue };
        ranking.best[curve * laws + best] = true;
        let lowest = ranked.iter().map(|&law| value(law)).fold(f64::INFINITY, f64::min);
        let weight = |law: usize| match criterion {
            Criterion::Holdout { .. } => (lowest.max(f64::MIN_POSITIVE) / value(law).max(f64::MIN_POSITIVE)).powi(2),
            _ => (-0.5 * (value(law) - lowest)).exp(),
        };
        let total: f64 = ranked.iter().map(|&law| weight(law)).sum();
        for &law in &ranked {
            ranking.evidence[curve * laws + law] = weight(law) / total;
        }
    }
    ranking
}

/// A law's information criterion on every curve; NaN without a fit, and without points to spare: more than parameters and
/// one (BIC), or as many as AICc's correction takes. What rounding leaves of a perfect fit tells laws apart no more.
pub fn criterion_scores(criterion: Criterion, packed: &Packed, verdicts: &Verdicts) -> Vec<Score> {
    let problem = &packed.problem;
    let p = problem.model.len();
    let unit = if problem.model.space == Space::Log { 1.0 } else { 0.0 };
    let score = |curve: usize| {
        let points = verdicts.points[curve];
        let (n, estimated) = (f64::from(points), p as f64 - f64::from(verdicts.pinned[curve].count_ones()));
        if !verdicts.status[curve].has_parameters() || n <= estimated + 1.0 {
            return Score { value: f64::NAN, points };
        }
        let rows = problem.rows(curve);
        let sizes = problem.response[rows.clone()].iter().zip(&problem.weight[rows]);
        let size: f64 = sizes.map(|(t, w)| w * (t * t + unit)).sum();
        let rounding = (8.0 * f64::EPSILON).powi(2) * size;
        let [aicc, bic] = information_criteria(verdicts.objective[curve].max(rounding), n, estimated + 1.0);
        Score { value: if criterion == Criterion::Bic { bic } else { aicc }, points }
    };
    (0..problem.len()).map(score).collect()
}

/// Root of the mean squared residual, in the fitting space, of a law fitted to some points (`verdicts`) on others (`held`).
pub fn holdout_scores(held: &Packed, verdicts: &Verdicts) -> Vec<Score> {
    let problem = &held.problem;
    let optima = optima(problem, verdicts);
    let fitted = fitted_values(problem, &optima);
    let score = |curve: usize| {
        let rows = problem.rows(curve);
        let points = rows.len() as u32;
        if !verdicts.status[curve].has_parameters() || points == 0 || problem.status[curve] == Some(Status::BadDomain) {
            return Score { value: f64::NAN, points };
        }
        let squares: f64 =
            problem.response[rows.clone()].iter().zip(&fitted[rows]).map(|(t, f)| (t - f) * (t - f)).sum();
        let value = (squares / f64::from(points)).sqrt();
        Score { value: if value.is_finite() { value } else { f64::NAN }, points }
    };
    (0..problem.len()).map(score).collect()
}

/// Divides every curve's rows into those at smaller scale and those held out. A row's scale is its value in the column
/// `scale`, or the product of several (parameters times tokens: the cost). Rows of one scale stay together: the cut is the
/// one between two scales that leaves out the share nearest to `fraction`, and some rows on either side. Rows with a null
/// in any of the columns `needed`, or of weight zero, are on neither side, so that all laws see the same rows.
pub fn divide(
    batch: &CurveBatch,
    scale: &[usize],
    needed: &[usize],
    weight: Option<usize>,
    fraction: f64,
) -> [CurveBatch; 2] {
    let empty = || CurveBatch { offsets: vec![0], columns: vec![Vec::new(); batch.columns.len()] };
    let mut parts = [empty(), empty()];
    let scale_of = |row: usize| scale.iter().map(|&column| batch.columns[column][row]).product::<f64>();
    let mut scales: Vec<f64> = Vec::new();
    for curve in 0..batch.len() {
        let usable = |&row: &usize| {
            needed.iter().all(|&column| !batch.columns[column][row].is_nan())
                && weight.is_none_or(|column| batch.columns[column][row] != 0.0)
        };
        let rows: Vec<usize> = (batch.offsets[curve]..batch.offsets[curve + 1]).filter(usable).collect();
        scales.clear();
        scales.extend(rows.iter().map(|&row| scale_of(row)));
        scales.sort_unstable_by(f64::total_cmp);
        let cut = cut(&scales, fraction);
        for row in rows {
            let side = usize::from(cut.is_some_and(|cut| scale_of(row) >= cut));
            for (target, source) in parts[side].columns.iter_mut().zip(&batch.columns) {
                target.push(source[row]);
            }
        }
        for part in &mut parts {
            part.offsets.push(part.columns[0].len());
        }
    }
    parts
}

/// The least scale that is held out, of scales in order; None where all are one.
fn cut(scales: &[f64], fraction: f64) -> Option<f64> {
    let wanted = fraction * scales.len() as f64;
    let borders = (1..scales.len()).filter(|&k| scales[k] > scales[k - 1]);
    let distance = |k: usize| ((scales.len() - k) as f64 - wanted).abs();
    borders.min_by(|&a, &b| distance(a).total_cmp(&distance(b))).map(|k| scales[k])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(family: &str, parameters: usize, place: usize) -> Contestant {
        Contestant { family: family.to_string(), parameters, place }
    }

    fn scores(values: &[f64]) -> Vec<Vec<Score>> {
        values.iter().map(|&value| vec![Score { value, points: 20 }]).collect()
    }

    #[test]
    fn the_lowest_wins_and_weights_are_those_of_akaike() {
        let laws = [contestant("a", 2, 0), contestant("b", 3, 1), contestant("c", 4, 2)];
        let ranking = rank(Criterion::Aicc, &laws, &scores(&[-10.0, -14.0, f64::NAN]));
        assert_eq!(ranking.best, [false, true, false]);
        let other = (-2.0f64).exp();
        assert!((ranking.evidence[0] - other / (1.0 + other)).abs() < 1e-15, "{:?}", ranking.evidence);
        assert!((ranking.evidence[0] + ranking.evidence[1] - 1.0).abs() < 1e-15 && ranking.evidence[2].is_nan());
    }

    #[test]
    fn ties_go_to_fewer_parameters_then_to_the_catalogue() {
        let laws = [contestant("a", 3, 5), contestant("b", 2, 9), contestant("c", 2, 4)];
        assert_eq!(rank(Criterion::Bic, &laws, &scores(&[-7.0, -7.0 + 1e-9, -7.0])).best, [false, false, true]);
        let holdout = Criterion::Holdout { fraction: 0.3 };
        assert_eq!(rank(holdout, &laws, &scores(&[1e-9, 2e-9, 2e-9])).best, [true, false, false]);
    }

    #[test]
    fn a_family_counts_once() {
        let laws = [contestant("f", 3, 1), contestant("f", 3, 0), contestant("g", 3, 2)];
        let ranking = rank(Criterion::Aicc, &laws, &scores(&[-5.0, -5.0, -5.0]));
        assert_eq!(ranking.best, [false, true, false]);
        assert!(ranking.evidence[0].is_nan() && ranking.evidence[1] == 0.5 && ranking.evidence[2] == 0.5);
    }

    #[test]
    fn scores_on_different_points_are_not_compared() {
        let mut scores = scores(&[-5.0, -9.0]);
        scores[1][0].points = 19;
        let ranking = rank(Criterion::Aicc, &[contestant("a", 2, 0), contestant("b", 2, 1)], &scores);
        assert_eq!((ranking.best, ranking.incomparable), (vec![false, false], 1));
    }

    #[test]
    fn weights_of_held_out_errors_are_inverse_to_their_squares() {
        let laws = [contestant("a", 2, 0), contestant("b", 3, 1)];
        let ranking = rank(Criterion::Holdout { fraction: 0.3 }, &laws, &scores(&[0.1, 0.2]));
        assert!((ranking.evidence[0] - 0.8).abs() < 1e-15 && (ranking.evidence[1] - 0.2).abs() < 1e-15);
    }

    #[test]
    fn the_largest_scales_are_held_out_and_equal_ones_stay_together() {
        let x = vec![8.0, 1.0, 2.0, 4.0, 8.0, 1.0, 2.0, f64::NAN, 16.0, 4.0];
        let y: Vec<f64> = (0..10).map(f64::from).collect();
        let batch = CurveBatch { offsets: vec![0, 10], columns: vec![x, y] };
        let [small, large] = divide(&batch, &[0], &[0, 1], None, 0.3);
        assert_eq!(large.columns[1], [0.0, 4.0, 8.0], "16 and both of 8");
        assert_eq!(small.columns[1], [1.0, 2.0, 3.0, 5.0, 6.0, 9.0], "the row without a scale is on neither side");
        let one = CurveBatch { offsets: vec![0, 2], columns: vec![vec![3.0, 3.0], vec![1.0, 2.0]] };
        assert_eq!(divide(&one, &[0], &[0, 1], None, 0.5).map(|part| part.rows()), [2, 0]);
    }
}
