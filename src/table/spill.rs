//! Groups rows that lie anywhere and do not fit into memory: by way of a file, in two more readings of the input.
//!
//! In: pieces in input order, first with keys alone ([`Census`]), then with numbers ([`Scatter`]). Out: the batches that
//! [`Gather`](super::group::Gather) would have made, in its order ([`Gathered`]). The first reading tells how many rows every
//! curve has, and so where each row goes: consecutive batches make up a part that fits into memory, the second reading
//! throws every row into its part's pages in the file, and a part is put in order when its turn comes. In memory stay the
//! keys and some 30 bytes of every curve. The file has no name, so that it goes with its process, however that ends.

use super::Batch;
use super::group::batch_end;
use super::index::{KeyIndex, NONE};
use super::keys::KeySchema;
use super::piece::Piece;
use crate::curves::CurveBatch;
use crate::error::{Error, Result};
use arrow::row::Rows;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How much memory rows may take that are grouped, and where those go that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the whole process, roughly; keys of all curves included.
    pub bytes: u64,
    /// A folder for files without a name.
    pub folder: PathBuf,
}

impl Memory {
    /// Bytes of a part's numbers: an eighth, beside keys, batches in flight and the rows that wait to be taken in.
    fn part(&self) -> u64 {
        self.bytes / 8
    }

    /// Whether so many rows of so many columns can be grouped in memory: the numbers and what orders them.
    pub(super) fn holds(&self, rows: u64, columns: usize) -> bool {
        rows.saturating_mul(8 * columns as u64 + 16) <= self.bytes / 2
    }

    /// Rows that may wait, decoded, in all queues together: with their keys some 64 bytes each.
    pub(super) fn rows_waiting(&self) -> usize {
        usize::try_from(self.bytes / 1024).unwrap_or(usize::MAX)
    }

    fn file(&self) -> Result<File> {
        tempfile::tempfile_in(&self.folder).map_err(|error| unwritable(&self.folder, &error))
    }
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Error {
    Error::Output {
        file: folder.to_path_buf(),
        message: format!("rows cannot be spilled here: {error}; free the disk, or choose another folder with --spill"),
    }
}

/// The first reading: curves and how many rows each has.
pub(super) struct Census {
    memory: Memory,
    curves: KeyIndex,
    lengths: Vec<u32>,
    /// The curve of every row, in input order.
    curve: BufWriter<File>,
}

impl Census {
    pub fn new(schema: &KeySchema, memory: &Memory) -> Result<Census> {
        let curve = BufWriter::with_capacity(1 << 20, memory.file()?);
        Ok(Census { memory: memory.clone(), curves: KeyIndex::new(schema), lengths: Vec::new(), curve })
    }

    /// Takes the keys of a piece in; `false` where there are more curves, or rows of one, than can be numbered.
    pub fn push(&mut self, piece: &Piece) -> Result<bool> {
        for (run, &start) in piece.starts.iter().enumerate() {
            let end = piece.starts.get(run + 1).copied().unwrap_or(piece.rows);
            let curve = self.curves.enter(piece.keys.row(run), piece.hashes[run]);
            self.lengths.resize(self.curves.len(), 0);
            let length = &mut self.lengths[curve as usize];
            let Some(longer) = length.checked_add((end - start) as u32) else { return Ok(false) };
            *length = longer;
            for _ in start..end {
                let written = self.curve.write_all(&curve.to_le_bytes());
                written.map_err(|error| unwritable(&self.memory.folder, &error))?;
            }
        }
        Ok(self.curves.len() < NONE as usize)
    }
}

/// A part: consecutive curves whose numbers fit into memory together.
struct Part {
    /// One behind its last curve.
    end: usize,
    rows: usize,
    /// Rows that are not in the file yet: place in the part, then the numbers.
    waiting: Vec<u8>,
    /// Where the others are: offset and length.
    pages: Vec<(u64, usize)>,
}

/// The second reading: every row to its part.
pub(super) struct Scatter {
    memory: Memory,
    schema: KeySchema,
    keys: Rows,
    lengths: Vec<u32>,
    parts: Vec<Part>,
    /// The part of every curve, and where in it the curve's next row goes.
    part: Vec<u32>,
    next: Vec<u32>,
    /// The curve of every row, in input order.
    curve: BufReader<File>,
    file: File,
    end: u64,
    columns: usize,
    /// Bytes of a page.
    page: usize,
}

impl Scatter {
    pub fn new(census: Census, schema: &KeySchema, columns: usize, batch_rows: usize) -> Result<Scatter> {
        let Census { memory, curves, lengths, curve } = census;
        let failed = |error: std::io::Error| unwritable(&memory.folder, &error);
        let mut written = curve.into_inner().map_err(|error| failed(error.into_error()))?;
        written.seek(SeekFrom::Start(0)).map_err(failed)?;
        let most = (memory.part() / (8 * columns.max(1) as u64)).min(u64::from(NONE)) as usize;
        let mut parts: Vec<Part> = Vec::new();
        let (mut part, mut next) = (Vec::with_capacity(lengths.len()), Vec::with_capacity(lengths.len()));
        let mut first = 0;
        while first < lengths.len() {
            let end = batch_end(&lengths, first, batch_rows);
            let rows: usize = lengths[first..end].iter().map(|length| *length as usize).sum();
            match parts.last_mut() {
                Some(last) if last.rows + rows <= most => {}
                _ => parts.push(Part { end: first, rows: 0, waiting: Vec::new(), pages: Vec::new() }),
            }
            let number = parts.len() as u32 - 1;
            let last = &mut parts[number as usize];
            for length in &lengths[first..end] {
                part.push(number);
                next.push(last.rows as u32);
                last.rows += *length as usize;
            }
            last.end = end;
            first = end;
        }
        // Pages of all parts together take a sixteenth; one of less than 64 KiB costs more in seeking than in reading.
        let page = (memory.bytes / 16 / parts.len().max(1) as u64).clamp(64 << 10, 1 << 20) as usize;
        let (file, curve) = (memory.file()?, BufReader::with_capacity(1 << 20, written));
        let (schema, keys) = (schema.clone(), curves.keys);
        Ok(Scatter { memory, schema, keys, lengths, parts, part, next, curve, file, end: 0, columns, page })
    }

    /// Takes the rows of a piece in.
    pub fn push(&mut self, piece: &Piece) -> Result<()> {
        let mut curve = [0; 4];
        for row in 0..piece.rows {
            self.curve.read_exact(&mut curve).map_err(|error| unwritable(&self.memory.folder, &error))?;
            let curve = u32::from_le_bytes(curve) as usize;
            let number = self.part[curve] as usize;
            let waiting = &mut self.parts[number].waiting;
            waiting.extend_from_slice(&self.next[curve].to_le_bytes());
            self.next[curve] += 1;
            piece.columns.iter().for_each(|column| waiting.extend_from_slice(&column[row].to_le_bytes()));
            if waiting.len() >= self.page {
                self.flush(number)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let part = &mut self.parts[number];
        self.file.write_all(&part.waiting).map_err(|error| unwritable(&self.memory.folder, &error))?;
        part.pages.push((self.end, part.waiting.len()));
        self.end += part.waiting.len() as u64;
        part.waiting.clear();
        Ok(())
    }

    /// All rows were taken in.
    pub fn finish(mut self) -> Result<Gathered> {
        for number in 0..self.parts.len() {
            self.flush(number)?;
            self.parts[number].waiting = Vec::new();
        }
        let Scatter { memory, schema, keys, lengths, parts, file, columns, .. } = self;
        let (parts, numbers) = (parts.into_iter(), vec![Vec::new(); columns]);
        Ok(Gathered { memory, schema, keys, lengths, parts, file, curve: 0, end: 0, numbers, row: 0 })
    }
}

/// All curves, handed out batch by batch.
pub(super) struct Gathered {
    memory: Memory,
    schema: KeySchema,
    keys: Rows,
    lengths: Vec<u32>,
    /// Those that were not read.
    parts: std::vec::IntoIter<Part>,
    file: File,
    /// The first curve that was not handed out, and one behind the last of the part in memory.
    curve: usize,
    end: usize,
    /// The part in memory, in order, and the first row of it that was not handed out.
    numbers: Vec<Vec<f64>>,
    row: usize,
}

impl Gathered {
    /// The next batch, cut where it would be cut in memory.
    pub fn next(&mut self, batch_rows: usize) -> Result<Option<Batch>> {
        if self.curve == self.lengths.len() {
            return Ok(None);
        }
        if self.curve == self.end {
            self.load()?;
        }
        let curves = self.curve..batch_end(&self.lengths, self.curve, batch_rows);
        let mut offsets = vec![0];
        let mut keys = self.schema.no_keys();
        for curve in curves.clone() {
            keys.push(self.keys.row(curve));
            offsets.push(offsets[offsets.len() - 1] + self.lengths[curve] as usize);
        }
        let rows = self.row..self.row + offsets[offsets.len() - 1];
        let columns = self.numbers.iter().map(|column| column[rows.clone()].to_vec()).collect();
        let keys = self.schema.decode(&keys, curves.len(), curves.start as u64);
        let keys = keys.map_err(|error| Error::Usage(format!("the key columns of --by cannot be grouped: {error}")))?;
        (self.curve, self.row) = (curves.end, rows.end);
        Ok(Some(Batch { keys, curves: CurveBatch { offsets, columns } }))
    }

    /// Reads the next part and puts it in order.
    fn load(&mut self) -> Result<()> {
        let part = self.parts.next().expect("every curve is in a part");
        let failed = |error: std::io::Error| unwritable(&self.memory.folder, &error);
        for column in &mut self.numbers {
            // What was there goes first: two parts do not fit.
            *column = Vec::new();
            *column = vec![0.0; part.rows];
        }
        let mut page = Vec::new();
        for (offset, length) in part.pages {
            page.resize(length, 0);
            self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            self.file.read_exact(&mut page).map_err(failed)?;
            for row in page.chunks_exact(4 + 8 * self.numbers.len()) {
                let (place, numbers) = row.split_first_chunk::<4>().expect("a row begins with its place");
                let place = u32::from_le_bytes(*place) as usize;
                for (column, number) in self.numbers.iter_mut().zip(numbers.as_chunks::<8>().0) {
                    column[place] = f64::from_le_bytes(*number);
                }
            }
        }
        (self.end, self.row) = (part.end, 0);
        Ok(())
    }
}
