//! Small dense systems, one at a time: what reference fits solve, apart from the lanes of the fit itself.

/// Solves `A x = b` in place for a symmetric positive definite `A` of `b.len()` rows, scaled to a unit diagonal first; false
/// where it is not positive definite to working precision.
pub fn solve_positive(matrix: &[f64], right: &mut [f64]) -> bool {
    let n = right.len();
    let scale: Vec<f64> = (0..n).map(|j| 1.0 / matrix[j * n + j].sqrt()).collect();
    let mut factor = vec![0.0; n * n];
    for j in 0..n {
        for i in 0..=j {
            let mut sum = matrix[j * n + i] * scale[i] * scale[j];
            for k in 0..i {
                sum -= factor[j * n + k] * factor[i * n + k];
            }
            if i < j {
                factor[j * n + i] = sum / factor[i * n + i];
            } else if sum > 0.0 && sum.is_finite() {
                factor[j * n + j] = sum.sqrt();
            } else {
                return false;
            }
        }
    }
    for j in 0..n {
        let known: f64 = (0..j).map(|k| factor[j * n + k] * right[k]).sum();
        right[j] = (right[j] * scale[j] - known) / factor[j * n + j];
    }
    for j in (0..n).rev() {
        let known: f64 = (j + 1..n).map(|k| factor[k * n + j] * right[k]).sum();
        right[j] = (right[j] - known) / factor[j * n + j];
    }
    for j in 0..n {
        right[j] *= scale[j];
    }
    right.iter().all(|x| x.is_finite())
}

/// A column this nearly a combination of those before it (sine of the angle) is left out of [`least_squares`].
const DEPENDENT: f64 = 1e-11;

/// The coefficients of `columns` (destroyed) that come nearest to `target` (which becomes the residual), by modified
/// Gram–Schmidt on the bordered matrix: as stable as Householder's (Björck 1967). Dependent columns get 0.
pub fn least_squares(columns: &mut [Vec<f64>], target: &mut [f64]) -> Vec<f64> {
    let n = columns.len();
    let (mut triangle, mut projected, mut kept) = (vec![0.0; n * n], vec![0.0; n], vec![false; n]);
    for j in 0..n {
        let (before, rest) = columns.split_at_mut(j);
        let column = &mut rest[0];
        let size = norm(column);
        for k in (0..j).filter(|&k| kept[k]) {
            triangle[k * n + j] = project(&before[k], column);
        }
        let left = norm(column);
        kept[j] = left > DEPENDENT * size && left.is_finite();
        if kept[j] {
            triangle[j * n + j] = left;
            column.iter_mut().for_each(|x| *x /= left);
            projected[j] = project(column, target);
        }
    }
    let mut solution = vec![0.0; n];
    for j in (0..n).rev().filter(|&j| kept[j]) {
        let known: f64 = (j + 1..n).map(|k| triangle[j * n + k] * solution[k]).sum();
        solution[j] = (projected[j] - known) / triangle[j * n + j];
    }
    solution
}

fn norm(column: &[f64]) -> f64 {
    column.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Takes the part along the unit vector `along` off `column`, and returns its length.
fn project(along: &[f64], column: &mut [f64]) -> f64 {
    let share: f64 = along.iter().zip(column.iter()).map(|(a, x)| a * x).sum();
    column.iter_mut().zip(along).for_each(|(x, a)| *x -= share * a);
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_solvers_find_the_coefficients_of_a_polynomial() {
        let x: Vec<f64> = (0..20).map(|i| f64::from(i) / 19.0).collect();
        let truth = [2.0, -3.0, 0.5, 7.0];
        let columns: Vec<Vec<f64>> = (0..4).map(|k| x.iter().map(|x| x.powi(k)).collect()).collect();
        let target: Vec<f64> = (0..20).map(|i| (0..4).map(|k| truth[k] * columns[k][i]).sum()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let matrix: Vec<f64> = (0..16).map(|k| dot(&columns[k / 4], &columns[k % 4])).collect();
        let mut normal: Vec<f64> = columns.iter().map(|column| dot(column, &target)).collect();
        assert!(solve_positive(&matrix, &mut normal));
        let mut residual = target.clone();
        let orthogonal = least_squares(&mut columns.clone(), &mut residual);
        for k in 0..4 {
            // The normal equations square a condition number of some hundred.
            assert!((normal[k] - truth[k]).abs() < 1e-10, "{normal:?}");
            assert!((orthogonal[k] - truth[k]).abs() < 1e-12, "{orthogonal:?}");
        }
        assert!(norm(&residual) < 1e-13);
    }

    #[test]
    fn singular_systems_are_told() {
        assert!(!solve_positive(&[1.0, 1.0, 1.0, 1.0], &mut [1.0, 2.0]));
        let mut columns = vec![vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0]];
        assert_eq!(least_squares(&mut columns, &mut [3.0, 3.0, 3.0])[1], 0.0);
    }
}
