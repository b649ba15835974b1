//! The one form in which data travels: ragged curves, structure of arrays, f64.

/// Curves that lie behind one another; curve `i` owns rows `offsets[i]..offsets[i + 1]` of every column.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveBatch {
    /// First row of every curve and, last, the number of rows; length curves + 1, starts at 0, never decreases.
    pub offsets: Vec<usize>,
    /// One per numeric column asked for, in the order asked; NaN stands for null.
    pub columns: Vec<Vec<f64>>,
}

impl CurveBatch {
    /// How many curves there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no curve.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Consecutive curves.
    pub fn slice(&self, curves: std::ops::Range<usize>) -> CurveBatch {
        let rows = self.offsets[curves.start]..self.offsets[curves.end];
        let offsets = self.offsets[curves.start..=curves.end].iter().map(|offset| offset - rows.start);
        let columns = self.columns.iter().map(|column| column[rows.clone()].to_vec());
        CurveBatch { offsets: offsets.collect(), columns: columns.collect() }
    }

    /// The curves at `curves`, in that order.
    pub fn take(&self, curves: &[u32]) -> CurveBatch {
        let ranges = || curves.iter().map(|&curve| self.offsets[curve as usize]..self.offsets[curve as usize + 1]);
        let mut offsets = vec![0];
        offsets.extend(ranges().scan(0, |end, range| {
            *end += range.len();
            Some(*end)
        }));
        let column = |column: &Vec<f64>| ranges().flat_map(|range| column[range].iter().copied()).collect();
        CurveBatch { offsets, columns: self.columns.iter().map(column).collect() }
    }

    /// How many rows there are in all curves together.
    pub fn rows(&self) -> usize {
        self.offsets[self.len()]
    }
}
