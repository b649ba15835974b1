//! Least squares by orthogonalisation (Householder's reflections), for one system: it does not square the condition number,
//! as normal equations do.
//!
//! In: columns and a right side, which are overwritten by their images. A column that is a combination of those before it is
//! passed over, and its unknown is 0.

/// A column this nearly a combination of the others (sine of the angle) is passed over.
const DEPENDENT: f64 = 1e-15;

/// A triangular system in the place of the columns.
#[derive(Debug, Default)]
pub struct Triangle {
    /// Columns that were not passed over, and the row that each of them ends in.
    pivots: Vec<(usize, usize)>,
}

impl Triangle {
    /// Eliminates the first `count` columns, and applies the same reflections to the others and to the right side.
    pub fn make(&mut self, columns: &mut [Vec<f64>], right: &mut [f64], count: usize) {
        self.pivots.clear();
        for k in 0..count {
            let row = self.pivots.len();
            if reflect(columns, right, k, row) {
                self.pivots.push((k, row));
            }
        }
    }

    /// How many rows the first `count` columns fill. The rows below hold what those columns cannot make up for.
    pub fn rank_of(&self, count: usize) -> usize {
        self.pivots.partition_point(|&(k, _)| k < count)
    }

    /// The solution for the first `solution.len()` columns; those behind them are left out of the fit.
    pub fn solve(&self, columns: &[Vec<f64>], right: &[f64], solution: &mut [f64]) {
        solution.fill(0.0);
        let pivots = &self.pivots[..self.rank_of(solution.len())];
        for (at, &(k, row)) in pivots.iter().enumerate().rev() {
            let known: f64 = pivots[at + 1..].iter().map(|&(l, _)| columns[l][row] * solution[l]).sum();
            solution[k] = (right[row] - known) / columns[k][row];
        }
    }
}

/// The least-squares solution of `columns · x = right`, with one more row `scale[k]` for every unknown (none where `scale` is
/// empty). Unknowns that the rows do not determine are 0.
pub fn least_squares(columns: &[Vec<f64>], right: &[f64], scale: &[f64]) -> Vec<f64> {
    let mut columns = columns.to_vec();
    let mut right = right.to_vec();
    for (k, &own) in scale.iter().enumerate() {
        for (l, column) in columns.iter_mut().enumerate() {
            column.push(if k == l { own } else { 0.0 });
        }
        right.push(0.0);
    }
    let mut triangle = Triangle::default();
    let count = columns.len();
    triangle.make(&mut columns, &mut right, count);
    let mut solution = vec![0.0; count];
    triangle.solve(&columns, &right, &mut solution);
    solution
}

/// The inverse of `columnsᵀ columns`, a packed lower triangle, and the smallest sine of the angle between a column and those
/// before it; 0, and an inverse that means nothing, where one is a combination of them. Columns are overwritten.
pub fn inverse_gram(columns: &mut [Vec<f64>]) -> (Vec<f64>, f64) {
    let count = columns.len();
    let norms: Vec<f64> = columns.iter().map(|column| size(column)).collect();
    let mut triangle = Triangle::default();
    let mut nothing = vec![0.0; columns.first().map_or(0, Vec::len)];
    triangle.make(columns, &mut nothing, count);
    if triangle.rank_of(count) < count {
        return (vec![f64::NAN; count * (count + 1) / 2], 0.0);
    }
    let sine = (0..count).map(|k| columns[k][k].abs() / norms[k]).fold(1.0, f64::min);
    // Rows of R⁻¹, upper triangular.
    let mut rows = vec![vec![0.0; count]; count];
    for k in 0..count {
        for j in (0..=k).rev() {
            let known: f64 = (j + 1..=k).map(|m| columns[m][j] * rows[m][k]).sum();
            rows[j][k] = (f64::from(u8::from(j == k)) - known) / columns[j][j];
        }
    }
    let product = |j: usize, k: usize| (j.max(k)..count).map(|m| rows[j][m] * rows[k][m]).sum::<f64>();
    let inverse = (0..count).flat_map(|j| (0..=j).map(move |k| (j, k))).map(|(j, k)| product(j, k)).collect();
    (inverse, sine)
}

fn size(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The reflection that leaves column `k` zero below `row`, applied to the columns behind it and the right side. False, and
/// nothing done, where what is left of the column is rounding.
fn reflect(columns: &mut [Vec<f64>], right: &mut [f64], k: usize, row: usize) -> bool {
    if row >= columns[k].len() {
        return false;
    }
    let (whole, norm) = (size(&columns[k]), size(&columns[k][row..]));
    if norm.is_nan() || norm <= DEPENDENT * whole {
        return false;
    }
    let (before, rest) = columns.split_at_mut(k + 1);
    let own = &mut before[k];
    let image = if own[row] > 0.0 { -norm } else { norm };
    own[row] -= image;
    let direction = &own[row..];
    let half = 0.5 * direction.iter().map(|x| x * x).sum::<f64>();
    let mirror = |values: &mut [f64]| {
        let share = direction.iter().zip(values.iter()).map(|(a, b)| a * b).sum::<f64>() / half;
        for (value, direction) in values.iter_mut().zip(direction) {
            *value -= share * direction;
        }
    };
    for column in rest {
        mirror(&mut column[row..]);
    }
    mirror(&mut right[row..]);
    own[row] = image;
    own[row + 1..].fill(0.0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_leave_a_residual_at_right_angles_to_every_column() {
        let columns: Vec<Vec<f64>> =
            (0..3).map(|k| (0..7).map(|i| f64::from((3 * i + k) * (k + 2) % 11)).collect()).collect();
        let right: Vec<f64> = (0..7).map(|i| f64::from(i * i % 5)).collect();
        let solution = least_squares(&columns, &right, &[]);
        for column in &columns {
            let product: f64 =
                (0..7).map(|i| column[i] * (right[i] - (0..3).map(|k| columns[k][i] * solution[k]).sum::<f64>())).sum();
            assert!(product.abs() < 1e-12, "{solution:?}: {product}");
        }
        // A column said twice: its second saying gets nothing.
        let twice = [columns[0].clone(), columns[1].clone(), columns[0].clone()];
        let shared = least_squares(&twice, &right, &[]);
        let alone = least_squares(&twice[..2], &right, &[]);
        assert_eq!(shared[2], 0.0);
        assert!((shared[0] - alone[0]).abs() + (shared[1] - alone[1]).abs() < 1e-12, "{shared:?} {alone:?}");
    }

    #[test]
    fn the_inverse_is_known_where_normal_equations_are_singular() {
        // Two columns at an angle of 1e-9: (JᵀJ)⁻¹ is 1e18 along their difference.
        let angle = 1e-9;
        let mut columns = vec![vec![1.0, 0.0, 0.0], vec![1.0, angle, 0.0]];
        let (inverse, sine) = inverse_gram(&mut columns);
        assert!((sine / angle - 1.0).abs() < 1e-6, "{sine}");
        let expected = [1.0 + angle.powi(-2), -angle.powi(-2), angle.powi(-2)];
        for (found, expected) in inverse.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{inverse:?}");
        }
        assert_eq!(inverse_gram(&mut [vec![1.0, 2.0], vec![2.0, 4.0]]).1, 0.0);
    }

    #[test]
    fn columns_behind_the_solution_are_left_out() {
        let columns: Vec<Vec<f64>> = (0..3).map(|k| (0..6).map(|i| f64::from(i).powi(k)).collect()).collect();
        let right: Vec<f64> = (0..6).map(|i| f64::from(i * i)).collect();
        let (mut made, mut image, mut triangle) = (columns.clone(), right.clone(), Triangle::default());
        triangle.make(&mut made, &mut image, 3);
        let mut line = [0.0; 2];
        triangle.solve(&made, &image, &mut line);
        let alone = least_squares(&columns[..2], &right, &[]);
        assert!((line[0] - alone[0]).abs() + (line[1] - alone[1]).abs() < 1e-12, "{line:?}, alone {alone:?}");
    }
}
