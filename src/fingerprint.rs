//! Fingerprints of content: 64 bits that differ where anything differs, the same in every build and on every machine.
//!
//! In: numbers and bytes. Out: a hash by folded multiplication (as wyhash folds: the two halves of a 128-bit product,
//! exclusive-or). Two contents share one with probability 2⁻⁶⁴; it guards against change, not against malice. The state
//! after every value is a fingerprint of what came so far, so that one pass tells whether a curve has only grown.

use crate::curves::CurveBatch;

/// Odd, and without structure: the first digits of π's fraction.
const START: u64 = 0x243f_6a88_85a3_08d3;
const MULTIPLIER: u64 = 0x1319_8a2e_0370_7345;

/// A fingerprint in the making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(START)
    }
}

impl Fingerprint {
    /// Takes 64 bits in.
    #[inline]
    pub fn add(&mut self, bits: u64) {
        // The state is turned, so that a value and its neighbour do not commute.
        let product = u128::from(self.0.rotate_left(23) ^ bits) * u128::from(MULTIPLIER);
        self.0 ^= (product as u64) ^ ((product >> 64) as u64);
    }

    /// Takes bytes in, and how many there are.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
        self.add(bytes.len() as u64);
    }

    /// Of all that was taken in.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Of bytes.
    pub fn of_bytes(bytes: &[u8]) -> u64 {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add_bytes(bytes);
        fingerprint.value()
    }
}

/// Curves that are taken in side by side: one waits for its product while the next is multiplied.
const LANES: usize = 4;

/// The fingerprint of every curve: its rows in order, all columns of a row before the next row.
pub fn of_curves(curves: &CurveBatch) -> Vec<u64> {
    let mut found = Vec::with_capacity(curves.len());
    // Of every column the rows that all curves of a step have: as many of each, so that no chain waits for a branch.
    let mut parts: Vec<[&[f64]; LANES]> = Vec::with_capacity(curves.columns.len());
    for first in (0..curves.len()).step_by(LANES) {
        let lanes = LANES.min(curves.len() - first);
        let rows = |lane: usize| curves.offsets[first + lane]..curves.offsets[first + lane + 1];
        let mut prints = [Fingerprint::default(); LANES];
        let mut common = 0;
        if lanes == LANES {
            common = (0..LANES).map(|lane| rows(lane).len()).min().unwrap_or(0);
            parts.clear();
            parts.extend(curves.columns.iter().map(|column| std::array::from_fn(|lane| &column[rows(lane)][..common])));
            prints = side_by_side(&parts, common);
        }
        for (lane, print) in prints[..lanes].iter_mut().enumerate() {
            rows(lane).skip(common).for_each(|row| add_row(print, curves, row));
        }
        found.extend(prints[..lanes].iter().map(|print| print.value()));
    }
    found
}

/// The fingerprints of the first `rows` rows of as many curves as there are lanes.
fn side_by_side(columns: &[[&[f64]; LANES]], rows: usize) -> [Fingerprint; LANES] {
    let mut prints = [Fingerprint::default(); LANES];
    for row in 0..rows {
        for lanes in columns {
            for lane in 0..LANES {
                prints[lane].add(lanes[lane][row].to_bits());
            }
        }
    }
    prints
}

/// Of a whole batch: where its curves end, and their rows.
pub fn of_batch(curves: &CurveBatch) -> u64 {
    let mut fingerprint = Fingerprint::default();
    curves.offsets.iter().for_each(|offset| fingerprint.add(*offset as u64));
    of_curves(curves).into_iter().for_each(|curve| fingerprint.add(curve));
    fingerprint.value()
}

/// How many of a curve's first rows have the fingerprint `known`, where any have: the curve has only grown since.
pub fn rows_known(curves: &CurveBatch, curve: usize, known: u64) -> Option<usize> {
    let (start, end) = (curves.offsets[curve], curves.offsets[curve + 1]);
    let mut fingerprint = Fingerprint::default();
    (start..end).find_map(|row| {
        add_row(&mut fingerprint, curves, row);
        (fingerprint.value() == known).then_some(row + 1 - start)
    })
}

fn add_row(fingerprint: &mut Fingerprint, curves: &CurveBatch, row: usize) {
    for column in &curves.columns {
        fingerprint.add(column[row].to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_bit_order_and_length_counts() {
        let base = vec![vec![1.0, 2.0, 3.0, 4.0], vec![0.5, 0.25, 0.0, -0.0]];
        let of = |columns: &[Vec<f64>]| {
            of_curves(&CurveBatch { offsets: vec![0, columns[0].len()], columns: columns.to_vec() })[0]
        };
        let mut seen = HashSet::from([of(&base)]);
        for column in 0..2 {
            for row in 0..4 {
                for bit in 0..64 {
                    let mut changed = base.clone();
                    changed[column][row] = f64::from_bits(changed[column][row].to_bits() ^ 1 << bit);
                    assert!(seen.insert(of(&changed)), "column {column}, row {row}, bit {bit}");
                }
            }
        }
        for (a, b) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
            let mut changed = base.clone();
            changed.iter_mut().for_each(|column| column.swap(a, b));
            assert!(seen.insert(of(&changed)), "rows {a} and {b} exchanged");
        }
        let shorter: Vec<Vec<f64>> = base.iter().map(|column| column[..3].to_vec()).collect();
        assert!(seen.insert(of(&shorter)));
        let bytes: HashSet<u64> = (0..40).map(|length| Fingerprint::of_bytes(&vec![0; length])).collect();
        assert_eq!(bytes.len(), 40);
    }

    #[test]
    fn a_curve_has_its_fingerprint_whatever_stands_beside_it() {
        let lengths = [0, 5, 1, 7, 3, 3, 0, 2, 9, 4, 1];
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(lengths.iter().scan(0, |end, length| {
                *end += length;
                Some(*end)
            }))
            .collect();
        let rows = offsets[lengths.len()];
        let columns: Vec<Vec<f64>> =
            (0..3).map(|column| (0..rows).map(|row| ((row * 7 + column) as f64).sqrt()).collect()).collect();
        let curves = CurveBatch { offsets: offsets.clone(), columns: columns.clone() };
        let expected = |curve: usize| {
            let mut fingerprint = Fingerprint::default();
            (offsets[curve]..offsets[curve + 1])
                .for_each(|row| columns.iter().for_each(|column| fingerprint.add(column[row].to_bits())));
            fingerprint.value()
        };
        assert_eq!(of_curves(&curves), (0..lengths.len()).map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_curve_that_has_grown_is_known_by_its_first_rows() {
        let columns = vec![(0..9).map(f64::from).collect::<Vec<_>>()];
        let old = CurveBatch { offsets: vec![0, 5], columns: vec![columns[0][2..7].to_vec()] };
        let new = CurveBatch { offsets: vec![0, 2, 9], columns };
        let known = of_curves(&old)[0];
        assert_eq!(rows_known(&new, 1, known), Some(5));
        assert_eq!(rows_known(&new, 0, known), None);
    }

    #[test]
    fn fingerprints_in_files_stay_what_they_were() {
        let curves = CurveBatch { offsets: vec![0, 2], columns: vec![vec![1.0, 2.0], vec![0.5, f64::NAN]] };
        assert_eq!(of_curves(&curves), [FROZEN]);
    }

    /// Written into users' files: a change of it refits every curve of everyone once.
    const FROZEN: u64 = 0x5949_405d_336c_5fe1;
}
