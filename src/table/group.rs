//! Pieces to batches of whole curves.
//!
//! In: pieces in input order. Out: batches whose borders depend on the curves alone, not on pieces, row groups or
//! threads. [`Stream`] joins rows that lie together and notices a key that comes back; [`Gather`] holds all rows and
//! groups them whatever their order.

use super::Batch;
use super::index::{KeyIndex, NONE};
use super::keys::{KeySchema, Keys};
use super::piece::Piece;
use super::seen::Before;
use crate::curves::CurveBatch;
use arrow::error::ArrowError;
use arrow::row::Rows;

/// A batch ends after so many curves, however short: more than that give the fit nothing more to share among cores.
const CURVES: usize = 16 * 1024;

/// What becomes of curves whose key comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Rows of one key are one curve.
    Key,
    /// Every run of a piece is a curve of its own, whatever its key: rows of lists.
    Run,
    /// There are no keys, and all rows are one curve.
    Whole,
}

/// What a piece led to.
pub(super) enum Streamed {
    Joined,
    /// A key came back after its curve was finished; described for the user.
    CameBack(String),
}

/// Groups rows that lie together.
pub(super) struct Stream {
    schema: KeySchema,
    identity: Identity,
    /// A batch ends with the curve that brings it to so many rows.
    batch_rows: usize,
    /// All keys so far.
    before: Before,
    /// Curves in batches that were handed out.
    handed_out: u64,
    /// Of the batch under construction: the first row of every curve, how many rows, the keys, the columns.
    starts: Vec<usize>,
    rows: usize,
    keys: Rows,
    columns: Vec<Vec<f64>>,
}

impl Stream {
    pub fn new(schema: &KeySchema, identity: Identity, columns: usize, batch_rows: usize) -> Stream {
        Stream {
            schema: schema.clone(),
            identity,
            batch_rows,
            before: Before::default(),
            handed_out: 0,
            starts: Vec::new(),
            rows: 0,
            keys: schema.no_keys(),
            columns: vec![Vec::new(); columns],
        }
    }

    /// Takes the rows of a piece in; batches that are whole go to `ready`.
    pub fn push(&mut self, mut piece: Piece, ready: &mut impl Extend<Batch>) -> Result<Streamed, ArrowError> {
        let goes_on = !piece.starts.is_empty() && self.goes_on(&piece);
        if self.identity == Identity::Key {
            let hashes = std::mem::take(&mut piece.hashes);
            if let Some(run) = self.before.add(&piece.keys, hashes, piece.rising, goes_on) {
                let mut key = self.schema.no_keys();
                key.push(piece.keys.row(run));
                return Ok(Streamed::CameBack(self.schema.decode(&key, 1, 0)?.describe(0)));
            }
        }
        // Rows before this one are in the batch.
        let mut copied = 0;
        for (run, &start) in piece.starts.iter().enumerate().skip(usize::from(goes_on)) {
            if self.starts.len() >= CURVES || self.rows + start - copied >= self.batch_rows {
                self.copy(&piece, copied, start);
                copied = start;
                ready.extend([self.cut()?]);
            }
            self.starts.push(self.rows + start - copied);
            if self.identity != Identity::Whole && piece.keys.num_rows() > 0 {
                self.keys.push(piece.keys.row(run));
            }
        }
        self.copy(&piece, copied, piece.rows);
        Ok(Streamed::Joined)
    }

    /// The last batch, if there is one.
    pub fn finish(&mut self) -> Result<Option<Batch>, ArrowError> {
        if self.starts.is_empty() { Ok(None) } else { self.cut().map(Some) }
    }

    /// Whether the first run of a piece belongs to the curve under construction.
    fn goes_on(&self, piece: &Piece) -> bool {
        match self.identity {
            Identity::Run => false,
            Identity::Whole => !self.starts.is_empty(),
            Identity::Key => {
                let last = self.keys.num_rows();
                last > 0 && self.keys.row(last - 1).data() == piece.keys.row(0).data()
            }
        }
    }

    fn copy(&mut self, piece: &Piece, from: usize, to: usize) {
        for (column, new) in self.columns.iter_mut().zip(&piece.columns) {
            column.extend_from_slice(&new[from..to]);
        }
        self.rows += to - from;
    }

    fn cut(&mut self) -> Result<Batch, ArrowError> {
        let mut offsets = std::mem::take(&mut self.starts);
        offsets.push(std::mem::take(&mut self.rows));
        let curves = offsets.len() - 1;
        // The next batch will be about as large: room at once instead of growing by copies.
        let columns = self.columns.iter_mut().map(|column| {
            let room = Vec::with_capacity(column.len() + column.len() / 8);
            std::mem::replace(column, room)
        });
        let columns = columns.collect();
        let keys = self.schema.decode(&self.keys, curves, self.handed_out)?;
        self.keys.clear();
        self.handed_out += curves as u64;
        Ok(Batch { keys, curves: CurveBatch { offsets, columns } })
    }
}

/// Groups rows that lie anywhere: all of them in memory, in 8 bytes per number and 8 per row.
pub(super) struct Gather {
    schema: KeySchema,
    /// In order of first appearance.
    curves: KeyIndex,
    /// How many rows every curve has.
    lengths: Vec<u32>,
    /// The curve of every row.
    curve: Vec<u32>,
    columns: Vec<Vec<f64>>,
}

impl Gather {
    /// `rows`: how many are expected, to make room at once.
    pub fn new(schema: &KeySchema, columns: usize, rows: usize) -> Gather {
        let mut curve = Vec::new();
        let mut numbers = vec![Vec::new(); columns];
        // The number is the file's claim; where it is too much for memory, rows that really come decide.
        if curve.try_reserve_exact(rows).is_ok() {
            for column in &mut numbers {
                let _ = column.try_reserve_exact(rows);
            }
        }
        let curves = KeyIndex::new(schema);
        Gather { schema: schema.clone(), curves, lengths: Vec::new(), curve, columns: numbers }
    }

    /// Takes the rows of a piece in; `false` where there are more rows than can be numbered.
    #[must_use]
    pub fn push(&mut self, piece: &Piece) -> bool {
        if self.curve.len() + piece.rows >= NONE as usize {
            return false;
        }
        for (run, &start) in piece.starts.iter().enumerate() {
            let end = piece.starts.get(run + 1).copied().unwrap_or(piece.rows);
            let curve = self.curves.enter(piece.keys.row(run), piece.hashes[run]);
            self.lengths.resize(self.curves.len(), 0);
            self.lengths[curve as usize] += (end - start) as u32;
            self.curve.resize(self.curve.len() + end - start, curve);
        }
        for (column, new) in self.columns.iter_mut().zip(&piece.columns) {
            column.extend_from_slice(new);
        }
        true
    }

    /// Sorts the rows by curve, stably.
    pub fn sort(self) -> Sorted {
        let mut ends: Vec<u32> = Vec::with_capacity(self.lengths.len());
        let mut end = 0;
        for length in &self.lengths {
            ends.push(end);
            end += length;
        }
        // While rows are placed, `ends[c]` is where the next row of curve c goes; afterwards it is where c ends.
        let mut order = vec![0u32; self.curve.len()];
        for (row, &curve) in self.curve.iter().enumerate() {
            let place = &mut ends[curve as usize];
            order[*place as usize] = row as u32;
            *place += 1;
        }
        Sorted {
            schema: self.schema,
            keys: self.curves.keys,
            lengths: self.lengths,
            ends,
            order,
            columns: self.columns,
            curve: 0,
        }
    }
}

/// One behind the last curve of the batch of `batch_rows` that begins with curve `first`, where every curve has so many rows.
pub(super) fn batch_end(lengths: &[u32], first: usize, batch_rows: usize) -> usize {
    let mut rows = 0;
    let whole = |(curve, length): &(usize, &u32)| {
        let goes_on = *curve < CURVES && rows < batch_rows;
        rows += **length as usize;
        goes_on
    };
    first + lengths[first..].iter().enumerate().take_while(whole).count()
}

/// All curves, handed out batch by batch.
pub(super) struct Sorted {
    schema: KeySchema,
    keys: Rows,
    lengths: Vec<u32>,
    /// Where every curve ends in `order`.
    ends: Vec<u32>,
    /// The rows, curve by curve.
    order: Vec<u32>,
    columns: Vec<Vec<f64>>,
    /// The first curve that was not handed out.
    curve: usize,
}

impl Sorted {
    /// The next batch, cut where [`Stream`] would cut it.
    pub fn next(&mut self, batch_rows: usize) -> Result<Option<Batch>, ArrowError> {
        let first = self.curve;
        if first == self.ends.len() {
            return Ok(None);
        }
        let start = if first == 0 { 0 } else { self.ends[first - 1] as usize };
        let mut offsets = vec![0];
        let mut keys = self.schema.no_keys();
        for curve in first..batch_end(&self.lengths, first, batch_rows) {
            keys.push(self.keys.row(curve));
            offsets.push(self.ends[curve] as usize - start);
        }
        let curves = offsets.len() - 1;
        self.curve += curves;
        let rows = &self.order[start..start + offsets[curves]];
        let columns = self.columns.iter().map(|column| rows.iter().map(|&row| column[row as usize]).collect());
        let columns = columns.collect();
        let keys: Keys = self.schema.decode(&keys, curves, first as u64)?;
        Ok(Some(Batch { keys, curves: CurveBatch { offsets, columns } }))
    }
}
