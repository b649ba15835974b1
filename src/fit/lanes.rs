//! Eight curves side by side: gathering them from a [`Problem`], and the small dense algebra that runs on all at once.
//!
//! Every function works lane by lane; no lane ever reads another, so that a curve's result does not depend on its company.

use super::problem::Problem;
use crate::evaluate::elementary;
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane};
use smallvec::SmallVec;

/// `each!(|i| value)`: a value for every lane. A macro, because a closure that the compiler leaves out of line would lose
/// the caller's vector instructions.
macro_rules! each {
    (|$i:ident| $value:expr) => {{
        let mut lane = [0.0; $crate::evaluate::tape::LANES];
        for $i in 0..$crate::evaluate::tape::LANES {
            lane[$i] = $value;
        }
        lane
    }};
}
pub(crate) use each;

/// Vectors and matrices of a few parameters, lane by lane; those of four parameters take no allocation.
pub type Lanes = SmallVec<[Lane; FEW]>;
const FEW: usize = 16;

/// `length` times zero. The library's own way copies what it made.
#[inline(always)]
pub fn zeros(length: usize) -> Lanes {
    let zero = [0.0; LANES];
    if length <= FEW { Lanes::from_buf_and_len([zero; FEW], length) } else { Lanes::from_elem(zero, length) }
}

/// Position of row `i`, column `j ≤ i` in a packed lower triangle.
#[inline(always)]
pub fn at(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

/// Position of an unordered pair in a packed lower triangle.
#[inline(always)]
pub fn pair(i: usize, j: usize) -> usize {
    if i >= j { at(i, j) } else { at(j, i) }
}

/// Length of a packed lower triangle.
pub fn triangle(p: usize) -> usize {
    p * (p + 1) / 2
}

/// Σ a b over the points of every lane, in four partial sums so that additions do not wait for one another.
#[inline(always)]
pub fn dot<const SET: u8>(a: &[f64], b: &[f64]) -> Lane {
    let mut sums = [[0.0; LANES]; 4];
    let mut a_points = a.chunks_exact(4 * LANES);
    let mut b_points = b.chunks_exact(4 * LANES);
    for (a, b) in (&mut a_points).zip(&mut b_points) {
        for (part, sum) in sums.iter_mut().enumerate() {
            for (i, sum) in sum.iter_mut().enumerate() {
                let index = part * LANES + i;
                *sum = elementary::fused::<SET>(a[index], b[index], *sum);
            }
        }
    }
    for (a, b) in a_points.remainder().chunks_exact(LANES).zip(b_points.remainder().chunks_exact(LANES)) {
        for i in 0..LANES {
            sums[0][i] = elementary::fused::<SET>(a[i], b[i], sums[0][i]);
        }
    }
    each!(|i| (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]))
}

/// A pack's points come in whole groups of so many, so that no sum depends on the longest curve of the pack.
pub const POINTS_OF_A_GROUP: usize = 4;
/// The values of the points that are taken together: what is computed of them stays in registers.
pub const GROUP: usize = POINTS_OF_A_GROUP * LANES;

/// Whole groups of the points; [`Gathered`] holds nothing else.
#[inline(always)]
pub fn groups(values: &[f64]) -> &[[f64; GROUP]] {
    values.as_chunks().0
}

/// As [`groups`], to be written to.
#[inline(always)]
pub fn groups_mut(values: &mut [f64]) -> &mut [[f64; GROUP]] {
    values.as_chunks_mut().0
}

/// Adds Σ a b over the points of a group to every lane's sum.
#[inline(always)]
pub fn add_product<const SET: u8>(sum: &mut Lane, a: &[f64; GROUP], b: &[f64; GROUP]) {
    let mut own = *sum;
    for first in (0..GROUP).step_by(LANES) {
        own = each!(|i| elementary::fused::<SET>(a[first + i], b[first + i], own[i]));
    }
    *sum = own;
}

/// Adds Σ a b to `sums[k]`, b being `column(k)`, in two partial sums so that additions do not wait for one another.
#[inline(always)]
pub fn add_dots<'a, const SET: u8>(a: &[f64], column: impl Fn(usize) -> &'a [f64], sums: &mut [Lane]) {
    for (k, sum) in sums.iter_mut().enumerate() {
        let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
        for (a, b) in groups(a).iter().zip(groups(column(k))) {
            for first in (0..GROUP).step_by(2 * LANES) {
                even = each!(|i| elementary::fused::<SET>(a[first + i], b[first + i], even[i]));
                odd = each!(|i| elementary::fused::<SET>(a[first + LANES + i], b[first + LANES + i], odd[i]));
            }
        }
        *sum = each!(|i| sum[i] + (even[i] + odd[i]));
    }
}

/// Factorises packed lower triangles in place, `A = L Lᵀ`, with 1/L_jj on the diagonal. A pivot at or below
/// `smallest` (of a matrix with unit diagonal) drops its column: 1/L_jj becomes 0. Returns every lane's smallest pivot.
#[inline(always)]
pub fn factorise<const SET: u8>(a: &mut [Lane], p: usize, smallest: f64) -> Lane {
    let mut least = [f64::INFINITY; LANES];
    for j in 0..p {
        let mut pivot = a[at(j, j)];
        for k in 0..j {
            let l = a[at(j, k)];
            pivot = each!(|i| elementary::fused::<SET>(-l[i], l[i], pivot[i]));
        }
        // A NaN pivot compares false and so is dropped as well.
        least = each!(|i| {
            if pivot[i] < least[i] {
                pivot[i]
            } else if pivot[i].is_nan() {
                -1.0
            } else {
                least[i]
            }
        });
        let inverse = each!(|i| if pivot[i] > smallest { 1.0 / pivot[i].sqrt() } else { 0.0 });
        a[at(j, j)] = inverse;
        for row in j + 1..p {
            let mut value = a[at(row, j)];
            for k in 0..j {
                let (x, y) = (a[at(row, k)], a[at(j, k)]);
                value = each!(|i| elementary::fused::<SET>(-x[i], y[i], value[i]));
            }
            a[at(row, j)] = each!(|i| value[i] * inverse[i]);
        }
    }
    least
}

/// Solves `L x = b` in place.
#[inline(always)]
pub fn solve_lower<const SET: u8>(l: &[Lane], b: &mut [Lane]) {
    for j in 0..b.len() {
        let mut value = b[j];
        for k in 0..j {
            let (x, y) = (l[at(j, k)], b[k]);
            value = each!(|i| elementary::fused::<SET>(-x[i], y[i], value[i]));
        }
        b[j] = each!(|i| value[i] * l[at(j, j)][i]);
    }
}

/// Solves `Lᵀ x = b` in place.
#[inline(always)]
pub fn solve_upper<const SET: u8>(l: &[Lane], b: &mut [Lane]) {
    for j in (0..b.len()).rev() {
        let mut value = b[j];
        for k in j + 1..b.len() {
            let (x, y) = (l[at(k, j)], b[k]);
            value = each!(|i| elementary::fused::<SET>(-x[i], y[i], value[i]));
        }
        b[j] = each!(|i| value[i] * l[at(j, j)][i]);
    }
}

/// Solves packed symmetric systems in place, scaled to a unit diagonal first; `matrix` is destroyed. Unknowns whose
/// diagonal is not positive, or whose scaled pivot is at or below `smallest`, come out as zero. Returns every lane's
/// smallest scaled pivot.
#[inline(always)]
pub fn solve_scaled<const SET: u8>(matrix: &mut [Lane], right: &mut [Lane], smallest: f64) -> Lane {
    let count = right.len();
    let mut scale = vec![[0.0; LANES]; count];
    for j in 0..count {
        let own = matrix[at(j, j)];
        scale[j] = each!(|i| if own[i] > 0.0 { 1.0 / own[i].sqrt() } else { 0.0 });
        right[j] = each!(|i| right[j][i] * scale[j][i]);
    }
    for j in 0..count {
        for k in 0..=j {
            let entry = matrix[at(j, k)];
            matrix[at(j, k)] = each!(|i| entry[i] * scale[j][i] * scale[k][i]);
        }
    }
    let least = factorise::<SET>(matrix, count, smallest);
    solve_lower::<SET>(matrix, right);
    solve_upper::<SET>(matrix, right);
    for j in 0..count {
        right[j] = each!(|i| right[j][i] * scale[j][i]);
    }
    least
}

/// The largest eigenvalue of packed symmetric matrices with none below zero, whose squares are within the range of f64; `a` is
/// destroyed.
#[inline(always)]
pub fn largest_eigenvalue<const SET: u8>(a: &mut [Lane], p: usize) -> Lane {
    match p {
        2 => {
            let (mean, half) = (each!(|i| 0.5 * (a[0][i] + a[2][i])), each!(|i| 0.5 * (a[0][i] - a[2][i])));
            each!(|i| mean[i] + (half[i] * half[i] + a[1][i] * a[1][i]).sqrt())
        }
        3 => largest_of_three(a),
        _ => rotate_to_largest::<SET>(a, p),
    }
}

/// The largest eigenvalue of packed symmetric matrices of three rows. With m the mean eigenvalue and 6 v² the sum of the squares of
/// A − m, it is m + v s, where s³ − 3 s = det(A − m)/v³ = 2 r and s = 2 cos(arccos(r)/3) lies in [1, 2].
#[inline(always)]
fn largest_of_three(a: &[Lane]) -> Lane {
    let mean = each!(|i| (a[0][i] + a[2][i] + a[5][i]) / 3.0);
    let (x, y, z) = (each!(|i| a[0][i] - mean[i]), each!(|i| a[2][i] - mean[i]), each!(|i| a[5][i] - mean[i]));
    let (f, g, h) = (a[4], a[3], a[1]);
    let beside = each!(|i| f[i] * f[i] + g[i] * g[i] + h[i] * h[i]);
    let v = each!(|i| ((x[i] * x[i] + y[i] * y[i] + z[i] * z[i] + 2.0 * beside[i]) / 6.0).sqrt());
    // In units of v, whose cube may be beyond that range.
    let unit = each!(|i| if v[i] > 0.0 { 1.0 / v[i] } else { 0.0 });
    let (x, y, z) = (each!(|i| x[i] * unit[i]), each!(|i| y[i] * unit[i]), each!(|i| z[i] * unit[i]));
    let (f, g, h) = (each!(|i| f[i] * unit[i]), each!(|i| g[i] * unit[i]), each!(|i| h[i] * unit[i]));
    let twice = each!(|i| {
        let determinant = x[i] * (y[i] * z[i] - f[i] * f[i]) - h[i] * (h[i] * z[i] - f[i] * g[i])
            + g[i] * (h[i] * f[i] - y[i] * g[i]);
        determinant.clamp(-2.0, 2.0)
    });
    // With u = √((1 + r)/2), s = 2 sin(π/6 + 2/3 arcsin u): within 8e-3 of this, and both ends exact.
    let mut s = each!(|i| {
        let u = (0.25 * twice[i] + 0.5).max(0.0).sqrt();
        1.0 + u * (2.0 / 3.0f64.sqrt() + u * (1.0 - 2.0 / 3.0f64.sqrt()))
    });
    for _ in 0..3 {
        s = each!(|i| {
            let (value, slope) = ((s[i] * s[i] - 3.0) * s[i] - twice[i], 3.0 * (s[i] * s[i] - 1.0));
            // Of two equal roots s = 1 is exact already.
            if slope > 1e-9 { s[i] - value / slope } else { s[i] }
        });
    }
    each!(|i| mean[i] + v[i] * s[i])
}

/// The largest eigenvalue of packed symmetric matrices by cyclic Jacobi rotations; `a` is destroyed.
#[inline(always)]
fn rotate_to_largest<const SET: u8>(a: &mut [Lane], p: usize) -> Lane {
    // Convergence is quadratic: six sweeps settle matrices of the size of a law, most take three.
    for _ in 0..6 {
        // A lane whose rotations would change no digit stands still: when the sweeps end is then nobody else's matter.
        let mut moving = [0.0; LANES];
        for q in 1..p {
            for r in 0..q {
                let (aqq, arr, aqr) = (a[at(q, q)], a[at(r, r)], a[at(q, r)]);
                // To the second order: an eigenvalue moves by the square of this.
                let negligible = 1e-7;
                let size = each!(|i| aqr[i] * aqr[i] - negligible * negligible * (aqq[i] * arr[i]).abs());
                moving = each!(|i| if size[i] > 0.0 { 1.0 } else { moving[i] });
                let t = each!(|i| {
                    let theta = (aqq[i] - arr[i]) / (2.0 * aqr[i]);
                    let t = 1.0 / (theta.abs() + elementary::fused::<SET>(theta, theta, 1.0).sqrt());
                    let t = if theta < 0.0 { -t } else { t };
                    if size[i] > 0.0 { t } else { 0.0 }
                });
                let c = each!(|i| 1.0 / elementary::fused::<SET>(t[i], t[i], 1.0).sqrt());
                let s = each!(|i| t[i] * c[i]);
                a[at(r, r)] = each!(|i| elementary::fused::<SET>(-t[i], aqr[i], arr[i]));
                a[at(q, q)] = each!(|i| elementary::fused::<SET>(t[i], aqr[i], aqq[i]));
                a[at(q, r)] = each!(|i| if size[i] > 0.0 { 0.0 } else { aqr[i] });
                for k in (0..p).filter(|&k| k != q && k != r) {
                    let (kr, kq) = (a[pair(k, r)], a[pair(k, q)]);
                    a[pair(k, r)] = each!(|i| c[i] * kr[i] - s[i] * kq[i]);
                    a[pair(k, q)] = each!(|i| s[i] * kr[i] + c[i] * kq[i]);
                }
            }
        }
        if moving.iter().all(|&moving| moving == 0.0) {
            break;
        }
    }
    let mut largest = [0.0; LANES];
    for j in 0..p {
        let own = a[at(j, j)];
        largest = each!(|i| if own[i] > largest[i] { own[i] } else { largest[i] });
    }
    largest
}

/// Up to eight curves of a problem, points interleaved: value `point * LANES + lane`.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Points of the longest curve; shorter ones repeat their first point with weight zero.
    pub points: usize,
    /// Length of one input column: `points * LANES`.
    pub stride: usize,
    pub inputs: Vec<f64>,
    pub response: Vec<f64>,
    pub weight: Vec<f64>,
}

impl Gathered {
    /// Gathers `curves` (1 to 8, each with at least one point); missing lanes repeat the last curve.
    pub fn gather(&mut self, problem: &Problem, curves: &[usize]) {
        let longest = curves.iter().map(|&curve| problem.points(curve)).max().expect("a pack holds a curve");
        self.points = longest.next_multiple_of(POINTS_OF_A_GROUP);
        self.stride = self.points * LANES;
        self.inputs.resize(self.stride * problem.inputs.len(), 0.0);
        self.response.resize(self.stride, 0.0);
        self.weight.resize(self.stride, 0.0);
        let rows: [_; LANES] = std::array::from_fn(|lane| problem.rows(curves[lane.min(curves.len() - 1)]));
        for (k, input) in problem.inputs.iter().enumerate() {
            interleave(&mut self.inputs[k * self.stride..][..self.stride], &of_lanes(input, &rows), None);
        }
        interleave(&mut self.response[..self.stride], &of_lanes(&problem.response, &rows), None);
        interleave(&mut self.weight[..self.stride], &of_lanes(&problem.weight, &rows), Some(0.0));
    }
}

/// The rows of every lane's curve.
fn of_lanes<'a>(column: &'a [f64], rows: &[std::ops::Range<usize>; LANES]) -> [&'a [f64]; LANES] {
    std::array::from_fn(|lane| &column[rows[lane].clone()])
}

kernel!(
    /// Writes every curve into its lane and fills what is left of it with `padding`, else with the curve's first value.
    fn interleave, fn interleave_kernel(target: &mut [f64], curves: &[&[f64]; LANES], padding: Option<f64>) = interleave_generic;
);

#[inline(always)]
fn interleave_generic<const SET: u8>(target: &mut [f64], curves: &[&[f64]; LANES], padding: Option<f64>) {
    let shortest = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
    let target = target.as_chunks_mut::<LANES>().0;
    // Square blocks: a cache line of every curve at a time.
    let blocks = curves.map(|curve| curve[..shortest].as_chunks::<LANES>().0);
    let whole = shortest / LANES;
    for (block, place) in target.as_chunks_mut::<LANES>().0[..whole].iter_mut().enumerate() {
        let rows: [&Lane; LANES] = std::array::from_fn(|lane| &blocks[lane][block]);
        for point in 0..LANES {
            place[point] = each!(|lane| rows[lane][point]);
        }
    }
    for (lane, curve) in curves.iter().enumerate() {
        let rest = padding.unwrap_or(curve[0]);
        let first = whole * LANES;
        for (point, place) in target[first..].iter_mut().enumerate() {
            place[lane] = curve.get(first + point).copied().unwrap_or(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::instruction_set::AVX2 as FUSED;

    #[test]
    fn padding_overwrites_all_that_lay_there_before() {
        let mut target = vec![7.0; 5 * LANES];
        let long = [1.0, 2.0, 3.0, 4.0, 5.0];
        let curves: [&[f64]; LANES] = std::array::from_fn(|lane| if lane == 2 { &long[..2] } else { &long[..] });
        let lane =
            |target: &[f64], lane: usize| -> Vec<f64> { target[lane..].iter().step_by(LANES).copied().collect() };
        interleave(&mut target, &curves, Some(0.0));
        assert_eq!((lane(&target, 2), lane(&target, 3)), (vec![1.0, 2.0, 0.0, 0.0, 0.0], long.to_vec()));
        interleave(&mut target, &[&long[1..3]; LANES], None);
        assert_eq!(lane(&target, 7), [2.0, 3.0, 2.0, 2.0, 2.0]);
    }

    /// Well-conditioned systems of four unknowns keep all but the last few bits.
    const AGREEMENT: f64 = 1e-12;

    fn matrix(lane: usize) -> [[f64; 4]; 4] {
        let seed = lane as f64;
        let b: [[f64; 4]; 4] =
            std::array::from_fn(|i| std::array::from_fn(|j| ((i * 4 + j) as f64 * 1.7 + seed).sin()));
        std::array::from_fn(|i| {
            std::array::from_fn(|j| (0..4).map(|k| b[i][k] * b[j][k]).sum::<f64>() + f64::from(u8::from(i == j)))
        })
    }

    #[test]
    fn systems_are_solved_in_every_lane() {
        let mut a: Vec<Lane> = Vec::new();
        for i in 0..4 {
            for j in 0..=i {
                a.push(each!(|lane| matrix(lane)[i][j]));
            }
        }
        let mut b: Vec<Lane> = (0..4).map(|i| each!(|lane| (i + lane) as f64)).collect();
        factorise::<FUSED>(&mut a, 4, 0.0);
        solve_lower::<FUSED>(&a, &mut b);
        solve_upper::<FUSED>(&a, &mut b);
        for lane in 0..LANES {
            for (i, row) in matrix(lane).iter().enumerate() {
                let product: f64 = row.iter().zip(&b).map(|(a, x)| a * x[lane]).sum();
                assert!((product - (i + lane) as f64).abs() < AGREEMENT, "lane {lane}, row {i}: {product}");
            }
        }
    }

    /// Both ways are exact to the square root of the rounding where two eigenvalues are equal.
    const SAME_EIGENVALUE: f64 = 1e-7;

    #[test]
    fn small_matrices_have_the_largest_eigenvalue_that_rotations_find() {
        // Correlations of every strength, of two and of three parameters, and inverses of such.
        let near = [0.0, 1e-12, 1e-6, 0.3, -0.5, 0.9, 1.0 - 1e-6, -(1.0 - 1e-12), 1.0];
        let mut matrices: Vec<Vec<f64>> = Vec::new();
        for a in near {
            matrices.push(vec![1.0, a, 1.0]);
            matrices.push(vec![3.0, a, 1e-3]);
            for b in near {
                for c in near {
                    matrices.push(vec![1.0, a, 1.0, b, c, 1.0]);
                    matrices.push(vec![1e9, 1e4 * a, 2.0, 1e3 * b, c, 1.0]);
                    matrices.push(vec![1e-140, 1e-141 * a, 1e-140, 1e-141 * b, 1e-141 * c, 1e-140]);
                }
            }
        }
        for matrix in matrices {
            let p = if matrix.len() == 3 { 2 } else { 3 };
            let lanes = || matrix.iter().map(|&entry| [entry; LANES]).collect::<Vec<Lane>>();
            let (found, expected) =
                (largest_eigenvalue::<FUSED>(&mut lanes(), p), rotate_to_largest::<FUSED>(&mut lanes(), p));
            let share = found[0] / expected[0] - 1.0;
            assert!(share.abs() < SAME_EIGENVALUE, "{matrix:?}: {}, by rotations {}", found[0], expected[0]);
        }
    }

    #[test]
    fn the_largest_eigenvalue_is_that_of_power_iteration() {
        let mut a: Vec<Lane> = Vec::new();
        for i in 0..4 {
            for j in 0..=i {
                a.push(each!(|lane| matrix(lane)[i][j]));
            }
        }
        let found = largest_eigenvalue::<FUSED>(&mut a, 4);
        for (lane, found) in found.iter().enumerate() {
            let m = matrix(lane);
            let mut v = [1.0, 0.3, -0.2, 0.7];
            let mut size = 0.0f64;
            for _ in 0..10_000 {
                let w: [f64; 4] = std::array::from_fn(|i| (0..4).map(|j| m[i][j] * v[j]).sum());
                size = w.iter().map(|x| x * x).sum::<f64>().sqrt();
                v = w.map(|x| x / size);
            }
            assert!((found / size - 1.0).abs() < AGREEMENT, "lane {lane}: {found}, power iteration says {size}");
        }
    }
}
