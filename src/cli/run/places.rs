//! What a step of a job reads and writes: no two steps may write one file, and who waits for whom.

use super::super::place::{covers, is_device, place};
use std::ops::Range;
use std::path::Path;
use sweepfit::job::{Entry, Step};
use sweepfit::table::{check_parts, check_place, is_url};
use sweepfit::{Error, Result};

/// Options that name files to write; `draws` is read by the other subcommands.
const WRITTEN_BY_FIT: [&str; 5] = ["output", "draws", "ledger", "summary", "metrics"];
const WRITTEN: [&str; 1] = ["output"];
/// Of these, tables: a place in a store will do.
const TABLES: [&str; 2] = ["output", "draws"];

/// Options that make a folder of the output.
const PARTED: [&str; 2] = ["partition-by", "part-rows"];

/// The files of a step.
#[derive(Debug)]
pub struct Places {
    writes: Vec<Entry>,
    /// Every other value: names of files are told from other texts by being the same as something written.
    reads: Vec<Entry>,
    /// Whether the output is a folder of parts.
    parted: bool,
}

/// A place in the file, and what is wrong there.
type Mistake = (Range<usize>, String);

impl Places {
    pub fn of(step: &Step, subcommand: &str) -> Places {
        let written: &[&str] = if subcommand == "fit" { &WRITTEN_BY_FIT } else { &WRITTEN };
        let (writes, reads) =
            step.entries.iter().cloned().partition(|entry| written.contains(&entry.key.name.as_str()));
        let parted = step.entries.iter().any(|entry| PARTED.contains(&entry.key.name.as_str()));
        Places { writes, reads, parted }
    }

    /// Two steps on one file would leave that of the second alone, and an input written over would be gone.
    pub fn refuse_clash(&self, earlier: &Places, title: &str) -> std::result::Result<(), Mistake> {
        for own in self.writes.iter().filter(|own| !is_device(&own.value)) {
            let same = |other: &&Entry| place(&other.value) == place(&own.value);
            if earlier.writes.iter().any(|other| same(&other)) {
                return Err((own.span.clone(), format!("{}: {title} writes {}, too", own.key.name, own.value)));
            }
            let inputs = || earlier.reads.iter().filter(|entry| entry.key.name == "inputs");
            if inputs().any(|other| covers(&other.value, &own.value)) {
                let message =
                    format!("{}: {} is an input of {title} and would be written over", own.key.name, own.value);
                return Err((own.span.clone(), message));
            }
        }
        Ok(())
    }

    /// Whether anything that this step reads is written by the earlier one.
    pub fn read_from(&self, earlier: &Places) -> bool {
        let written = || earlier.writes.iter().filter(|entry| entry.value != "-");
        self.reads.iter().any(|read| written().any(|written| covers(&read.value, &written.value)))
    }

    /// Whether all outputs can be written.
    pub fn writable(&self) -> Result<()> {
        for entry in &self.writes {
            if self.parted && entry.key.name == "output" {
                check_parts(&entry.value)?;
            } else if TABLES.contains(&entry.key.name.as_str()) || is_url(&entry.value) {
                check_place(&entry.value)?;
            } else if !Path::new(&entry.value).parent().is_none_or(|folder| folder == Path::new("") || folder.is_dir())
            {
                let message = format!("its folder does not exist; make it first, or choose another {}", entry.key.name);
                return Err(Error::Output { file: entry.value.clone().into(), message });
            }
        }
        Ok(())
    }
}
