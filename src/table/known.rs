//! Which curves an earlier table of fits holds: their keys and fingerprints, all in memory.
//!
//! In: the table, the key columns and laws of this run. Out: for the curves of a batch what became of them since ([`Found`]),
//! and at the end which did not come again. Their rows are `past`'s matter.

use super::decode::{Task, decode, tasks};
use super::guard::damaged;
use super::index::AsIs;
use super::keys::{KeySchema, Keys, hash};
use super::past::{FINGERPRINT, unfit};
use super::source::{Place, Source};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt64Type};
use arrow::error::ArrowError;
use arrow::row::{Row, Rows};
use rayon::prelude::*;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What became of a curve since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its rows are those of the curve at this place of the table.
    Same(u32),
    /// It stood at this place, and its rows have changed.
    Changed(u32),
    /// It was not there.
    New,
}

type Places = HashMap<u64, u32, BuildHasherDefault<AsIs>>;

/// The curves of an earlier table of fits, in its order.
pub(super) struct Known {
    path: PathBuf,
    schema: KeySchema,
    /// Whether a key is that of one curve at most.
    unique: bool,
    /// The keys, in stretches, each with the place of its first; none where there are no key columns.
    keys: Vec<(usize, Rows)>,
    fingerprints: Vec<u64>,
    /// Where keys, and keys with their fingerprints, stand; made when curves come in another order than they stood.
    places: OnceLock<[Places; 2]>,
    /// Which curves came again.
    seen: Vec<AtomicBool>,
}

/// What some rows of the table, one after another, say of curves.
struct Stretch {
    /// Of the curves whose first row is here.
    keys: Rows,
    fingerprints: Vec<u64>,
    /// The fingerprint of the first row, where that is not the first of its curve.
    goes_on: Option<u64>,
}

impl Known {
    /// Reads the table in `source`, whose columns are those of this run: one row for each of `laws` of every curve, in this order;
    /// `unique` says that a key is that of one curve at most.
    ///
    /// # Errors
    /// Other rows than these; [`Error::Interrupted`] soon after `interrupted` is set.
    pub fn read(
        source: &Source,
        schema: &KeySchema,
        laws: &[String],
        unique: bool,
        interrupted: &AtomicBool,
    ) -> Result<Known> {
        // With the index of the first row of its file.
        let mut parts: Vec<(Task, u64)> = Vec::new();
        let mut rows = 0;
        for (index, file) in source.tables().iter().enumerate() {
            parts.extend(tasks(index, file, false).into_iter().map(|task| (task, rows)));
            rows += file.rows().unwrap_or(0);
        }
        let path = source.files().first().map_or(Path::new("--since"), PathBuf::as_path);
        if !rows.is_multiple_of(laws.len() as u64) {
            return Err(torn(path));
        }
        let read = |(task, before): &(Task, u64)| stretches(source, schema, laws, task, *before, interrupted);
        let stretches = parts.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        let (mut keys, mut fingerprints) = (Vec::new(), Vec::with_capacity(rows as usize / laws.len()));
        for stretch in stretches.into_iter().flatten() {
            if stretch.goes_on.is_some_and(|print| fingerprints.last() != Some(&print)) {
                return Err(torn(path));
            }
            if stretch.keys.num_rows() > 0 {
                keys.push((fingerprints.len(), stretch.keys));
            }
            fingerprints.extend(stretch.fingerprints);
        }
        let seen = fingerprints.iter().map(|_| AtomicBool::new(false)).collect();
        let (path, schema, places) = (path.to_path_buf(), schema.clone(), OnceLock::new());
        Ok(Known { path, schema, unique, keys, fingerprints, places, seen })
    }

    /// How many curves there are.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// The fingerprint that a curve had.
    pub fn fingerprint(&self, place: u32) -> u64 {
        self.fingerprints[place as usize]
    }

    fn failed(&self, error: &ArrowError) -> Error {
        damaged(&self.path, &error.to_string())
    }

    /// The key of a curve; only where there are key columns.
    fn key(&self, at: usize) -> Row<'_> {
        let stretch = self.keys.partition_point(|(first, _)| *first <= at) - 1;
        let (first, keys) = &self.keys[stretch];
        keys.row(at - first)
    }

    /// What became of every curve of a batch; `first` is the index in the run of the batch's first curve.
    ///
    /// # Errors
    /// Keys that cannot be compared.
    pub fn find(&self, keys: &Keys, fingerprints: &[u64], first: u64) -> Result<Vec<Found>> {
        let encoded = match keys.columns() {
            [] => None,
            columns => {
                let at = (0..keys.len() as u32).collect();
                Some(self.schema.encode_unhashed(columns, at).map_err(|error| self.failed(&error))?)
            }
        };
        // Most curves come again in the order in which they stood.
        let mut next = usize::try_from(first).unwrap_or(usize::MAX);
        let found = fingerprints.iter().enumerate().map(|(curve, &fingerprint)| {
            let key = encoded.as_ref().map(|rows| rows.row(curve));
            let found = self.find_one(key, fingerprint, next);
            if let Found::Same(at) | Found::Changed(at) = found {
                self.seen[at as usize].store(true, Ordering::Relaxed);
                next = at as usize + 1;
            }
            found
        });
        Ok(found.collect())
    }

    fn find_one(&self, key: Option<Row>, fingerprint: u64, next: usize) -> Found {
        let is = |at: usize| match key {
            _ if at >= self.len() => false,
            Some(key) => self.key(at).data() == key.data(),
            None => true,
        };
        if is(next) && self.fingerprints[next] == fingerprint {
            return Found::Same(next as u32);
        }
        // A key of its own names the curve, whatever became of it.
        if self.unique && key.is_some() && is(next) {
            return Found::Changed(next as u32);
        }
        let hash = key.map_or(0, |key| hash(key.data()));
        let [by_key, by_content] = self.places.get_or_init(|| self.places());
        let same = match self.unique {
            true => by_key.get(&hash).copied(),
            false => by_content.get(&mixed(hash, fingerprint)).copied(),
        };
        if let Some(at) = same.filter(|&at| self.fingerprints[at as usize] == fingerprint && is(at as usize)) {
            return Found::Same(at);
        }
        // Without keys every row is a curve of its own, and has no name by which it could be another one's successor.
        let changed = key.and_then(|_| by_key.get(&hash).copied());
        changed.filter(|&at| is(at as usize)).map_or(Found::New, Found::Changed)
    }

    fn places(&self) -> [Places; 2] {
        let mut places = [Places::default(), Places::default()];
        let wanted = if self.unique { &mut places[..1] } else { &mut places[..] };
        wanted.iter_mut().for_each(|places| places.reserve(self.len()));
        for (at, &fingerprint) in self.fingerprints.iter().enumerate().rev() {
            let hash = if self.keys.is_empty() { 0 } else { hash(self.key(at).data()) };
            places[0].insert(hash, at as u32);
            if !self.unique {
                places[1].insert(mixed(hash, fingerprint), at as u32);
            }
        }
        places
    }

    /// The keys of curves that did not come again, in their old order.
    ///
    /// # Errors
    /// Keys that cannot be shown.
    pub fn vanished(&self) -> Result<Vec<String>> {
        let gone = self.seen.iter().enumerate().filter(|(_, seen)| !seen.load(Ordering::Relaxed));
        let gone: Vec<usize> = gone.map(|(at, _)| at).collect();
        if self.keys.is_empty() {
            return Ok(gone.into_iter().map(|at| format!("curve {}", at + 1)).collect());
        }
        let mut keys = self.schema.no_keys();
        gone.iter().for_each(|&at| keys.push(self.key(at)));
        let keys = self.schema.decode(&keys, gone.len(), 0).map_err(|error| self.failed(&error))?;
        Ok((0..gone.len()).map(|index| keys.describe(index)).collect())
    }
}

/// What a part of the table says; `before`: rows of the table before its file.
fn stretches(
    source: &Source,
    schema: &KeySchema,
    laws: &[String],
    task: &Task,
    before: u64,
    interrupted: &AtomicBool,
) -> Result<Vec<Stretch>> {
    let file = &source.tables()[task.file];
    let mut places: Vec<Place> = Vec::with_capacity(schema.names().len() + 2);
    for name in schema.names().iter().map(String::as_str).chain(["law", FINGERPRINT]) {
        places.push(file.place(name)?.expect("a column of this run, which was found"));
    }
    let mut found = Vec::new();
    let mut row = before + task.first_row;
    decode(task, file, &places, &mut |rows, columns| {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let (keys, own) = columns.split_at(columns.len() - 2);
        let (law, prints) = (&own[0], &own[1]);
        let failed = |error: ArrowError| damaged(&file.path, &error.to_string());
        let law = positions(law, laws).map_err(failed)?;
        let prints = cast(prints, &DataType::UInt64).map_err(failed)?;
        let prints = prints.as_primitive::<UInt64Type>().values();
        let expected = |at: usize| ((row + at as u64) % laws.len() as u64) as usize;
        let in_turn = (0..rows).all(|at| law(at) == Some(expected(at)));
        if !in_turn || (1..rows).any(|at| expected(at) != 0 && prints[at] != prints[at - 1]) {
            return Err(torn(&file.path));
        }
        let firsts: Vec<u32> = (0..rows).filter(|&at| expected(at) == 0).map(|at| at as u32).collect();
        found.push(Stretch {
            fingerprints: firsts.iter().map(|&at| prints[at as usize]).collect(),
            goes_on: (rows > 0 && expected(0) != 0).then(|| prints[0]),
            keys: match keys {
                [] => schema.no_keys(),
                keys => schema.encode_unhashed(keys, firsts).map_err(failed)?,
            },
        });
        row += rows as u64;
        Ok(true)
    })?;
    Ok(found)
}

/// Which of `laws` stands in a row, by its position.
fn positions(
    column: &ArrayRef,
    laws: &[String],
) -> std::result::Result<impl Fn(usize) -> Option<usize> + use<>, ArrowError> {
    // Of a dictionary its few values are compared, and not the rows.
    let (values, places) = match column.as_any_dictionary_opt() {
        Some(dictionary) => (dictionary.values(), Some(dictionary.normalized_keys())),
        None => (column, None),
    };
    let values = cast(values, &DataType::Utf8)?;
    let of = |text: Option<&str>| laws.iter().position(|law| Some(law.as_str()) == text);
    let positions: Vec<Option<usize>> = values.as_string::<i32>().iter().map(of).collect();
    let nulls = column.logical_nulls();
    Ok(move |row: usize| match &places {
        _ if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) => None,
        Some(places) => positions.get(places[row]).copied().flatten(),
        None => positions[row],
    })
}

fn torn(path: &Path) -> Error {
    let message = "does not hold one row for every law of every curve, in the order in which they were written (parts by law or \
                   status tear them apart)";
    unfit(path, message.into())
}

fn mixed(hash: u64, fingerprint: u64) -> u64 {
    let mut mixed = Fingerprint::default();
    mixed.add(hash);
    mixed.add(fingerprint);
    mixed.value()
}
