//! The ledger of finished work: what a run has fitted survives its death, and the next run goes on behind it.
//!
//! In: what the run is (version, options, inputs, each as a named text) and, batch by batch, its rows as bytes. Out: the
//! same bytes again, in the same order, to a later run that is the same. One file beside the output, only ever appended to:
//! a head, then a record per batch, each under a checksum. A record that death cut off, or that the disk lost, does not
//! bear its checksum: it and what follows are dropped and fitted again. Where batches begin and end depends on the input
//! alone, so a finished batch is the one that an undisturbed run would have made. Knows no laws and no tables.

use super::lock::beside;
use crate::bytes::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What finished batches are worth is known after so long at the latest: so much work a power cut can undo. The death of
/// the process alone undoes nothing that was appended.
const SYNC: Duration = Duration::from_secs(1);

/// Every record begins with it.
const MAGIC: u64 = u64::from_le_bytes(*b"sweepfit");

/// What may be done about the ledger of another run.
const REPAIR: &str =
    "run that one again to continue it, or remove this file, or let such runs begin anew with --or-begin-anew";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head = 1,
    /// A finished batch.
    Batch = 2,
    /// The rows of curves do not lie together: earlier batches are void. Holds the note for the user.
    Scattered = 3,
}

/// Magic, kind, length of the payload, checksum.
const FRAME: usize = 32;

/// What is kept of a run that has not ended.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    /// Where the payload of every finished batch lies: offset and length.
    batches: Vec<(u64, u64)>,
    /// Set where the rows of curves were found not to lie together.
    scattered: Option<String>,
    /// Where the next record goes.
    end: u64,
    synced: Instant,
}

impl Ledger {
    /// Where the ledger of an output lies.
    pub fn path_of(out: &Path) -> PathBuf {
        beside(out, "ledger")
    }

    /// Opens a ledger, or begins one; `run` says by name what the run is.
    ///
    /// # Errors
    /// [`Error::Earlier`] where the ledger is another run's, saying in what; [`Error::Output`] where it is none, and where it
    /// cannot be read or written.
    pub fn open(path: &Path, run: &[(String, String)]) -> Result<Ledger> {
        let unusable = |error: std::io::Error| failed(path, &error);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
        let mut ledger = Ledger::read_all(path, file, run)?;
        // A torn end goes.
        ledger.file.set_len(ledger.end).map_err(unusable)?;
        if ledger.end == 0 {
            ledger.append(Kind::Head, &encode_head(run))?;
            ledger.sync()?;
        }
        Ok(ledger)
    }

    /// Begins a ledger in the place of whatever ledger is there.
    ///
    /// # Errors
    /// [`Error::Output`] where it cannot be written.
    pub fn begin(path: &Path, run: &[(String, String)]) -> Result<Ledger> {
        File::create(path).map_err(|error| failed(path, &error))?;
        Ledger::open(path, run)
    }

    /// Looks whether [`Ledger::open`] would succeed, and changes nothing.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn look(path: &Path, run: &[(String, String)]) -> Result<()> {
        match File::open(path) {
            Ok(file) => Ledger::read_all(path, file, run).map(drop),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let there = folder.is_none_or(Path::is_dir);
                if there { Ok(()) } else { Err(failed(path, &"its folder does not exist")) }
            }
            Err(error) => Err(failed(path, &error)),
        }
    }

    /// Finds the whole records of a file, if they are those of `run`; none where there is nothing to continue.
    fn read_all(path: &Path, file: File, run: &[(String, String)]) -> Result<Ledger> {
        let path = path.to_path_buf();
        let unusable = |error: std::io::Error| failed(&path, &error);
        let mut ledger =
            Ledger { path: path.clone(), file, batches: Vec::new(), scattered: None, end: 0, synced: Instant::now() };
        let mut reader = BufReader::new(ledger.file.try_clone().map_err(unusable)?);
        let mut payload = Vec::new();
        let mut head = None;
        while let Some(kind) = next_record(&mut reader, &mut payload).map_err(unusable)? {
            let start = ledger.end + FRAME as u64;
            ledger.end = start + payload.len() as u64;
            match kind {
                Kind::Head => head = Some(decode_head(&payload)),
                Kind::Batch => ledger.batches.push((start, payload.len() as u64)),
                Kind::Scattered => {
                    ledger.batches.clear();
                    ledger.scattered = Some(String::from_utf8_lossy(&payload).into_owned());
                }
            }
        }
        match head {
            // Where nothing was finished, nothing is lost by beginning anew.
            Some(Some(_)) if ledger.batches.is_empty() && ledger.scattered.is_none() => ledger.end = 0,
            Some(Some(known)) => ledger.refuse_another_run(&known, run)?,
            // Death cut off the head itself: there is nothing to continue.
            None if ledger.begins_as_one().map_err(unusable)? => {}
            _ => {
                let message = "is not a ledger of sweepfit, although it lies in its place; move it away".to_string();
                return Err(Error::Output { file: path, message });
            }
        }
        Ok(ledger)
    }

    /// Whether the first bytes, as many as there are, are those of a record.
    fn begins_as_one(&mut self) -> std::io::Result<bool> {
        let mut first = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&mut self.file).take(8).read_to_end(&mut first)?;
        Ok(MAGIC.to_le_bytes().starts_with(&first))
    }

    fn refuse_another_run(&self, known: &[(String, String)], run: &[(String, String)]) -> Result<()> {
        let value = |of: &[(String, String)], name: &str| {
            of.iter().find(|(own, _)| own == name).map_or("none".to_string(), |(_, value)| shown(value))
        };
        let names = || run.iter().chain(known).map(|(name, _)| name);
        let differs = |name: &&String| {
            let of = |of: &[(String, String)]| of.iter().find(|(own, _)| own == *name).map(|(_, value)| value.clone());
            of(known) != of(run)
        };
        let Some(name) = names().find(differs) else { return Ok(()) };
        Err(Error::Earlier {
            file: self.path.clone(),
            message: format!(
                "holds the finished work of another run: {name} was {}, and is {}",
                value(known, name),
                value(run, name)
            ),
            repair: REPAIR,
        })
    }

    /// How many batches are finished.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The note that the rows of curves do not lie together, where that is known.
    pub fn scattered(&self) -> Option<&str> {
        self.scattered.as_deref()
    }

    /// What was appended for the batch at `index`.
    ///
    /// # Errors
    /// [`Error::Output`] where it cannot be read any more.
    pub fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let (start, length) = self.batches[index];
        let mut payload = vec![0; length as usize];
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut payload));
        read.map_err(|error| failed(&self.path, &error))?;
        Ok(payload)
    }

    /// The error for a batch whose bytes, although whole, are not those of this run's input.
    pub fn foreign(&self, index: usize) -> Error {
        Error::Earlier {
            file: self.path.clone(),
            message: format!(
                "holds the finished work of another run: batch {} of the input has changed since",
                index + 1
            ),
            repair: REPAIR,
        }
    }

    /// Keeps the next finished batch.
    ///
    /// # Errors
    /// [`Error::Output`]: a full disk, for example. What was kept before stays.
    pub fn keep(&mut self, payload: &[u8]) -> Result<()> {
        let start = self.end + FRAME as u64;
        self.append(Kind::Batch, payload)?;
        self.batches.push((start, payload.len() as u64));
        if self.synced.elapsed() > SYNC { self.sync() } else { Ok(()) }
    }

    /// Keeps that the rows of curves do not lie together; what was kept before is void.
    ///
    /// # Errors
    /// As [`Ledger::keep`].
    pub fn restart(&mut self, note: &str) -> Result<()> {
        self.append(Kind::Scattered, note.as_bytes())?;
        self.batches.clear();
        self.scattered = Some(note.to_string());
        self.sync()
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut frame = [MAGIC, kind as u64, payload.len() as u64, 0];
        frame[3] = checksum(&frame, payload);
        let frame: Vec<u8> = frame.iter().flat_map(|word| word.to_le_bytes()).collect();
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| {
            self.file.write_all(&frame)?;
            self.file.write_all(payload)
        });
        written.map_err(|error| failed(&self.path, &error))?;
        self.end += (FRAME + payload.len()) as u64;
        Ok(())
    }

    /// Makes sure that all of it survives a power cut.
    ///
    /// # Errors
    /// As [`Ledger::keep`].
    pub fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|error| failed(&self.path, &error))
    }

    /// Ends the ledger of a run whose output is complete.
    ///
    /// # Errors
    /// [`Error::Output`] where it cannot be removed.
    pub fn remove(self) -> Result<()> {
        Ledger::drop_at(&self.path)
    }

    /// Removes a ledger that is of no use.
    ///
    /// # Errors
    /// As [`Ledger::remove`].
    pub fn drop_at(path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(|error| failed(path, &error))
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Output {
        file: path.to_path_buf(),
        message: format!("the ledger cannot be kept: {error}; free the disk, or choose another place with --ledger"),
    }
}

/// Long values are shown by their beginning.
pub(super) fn shown(value: &str) -> String {
    const SHOWN: usize = 120;
    let line = value.replace('\n', "; ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("\"{}…\"", &line[..end]),
        None => format!("\"{line}\""),
    }
}

fn checksum(frame: &[u64; 4], payload: &[u8]) -> u64 {
    let mut sum = Fingerprint::default();
    frame[..3].iter().for_each(|word| sum.add(*word));
    sum.add_bytes(payload);
    sum.value()
}

/// The next whole record's kind; its payload replaces what `payload` held. `None` at the end or at a torn record.
fn next_record(reader: &mut impl Read, payload: &mut Vec<u8>) -> std::io::Result<Option<Kind>> {
    let mut bytes = Vec::with_capacity(FRAME);
    if reader.by_ref().take(FRAME as u64).read_to_end(&mut bytes)? < FRAME {
        return Ok(None);
    }
    let mut frame = [0u64; 4];
    for (word, bytes) in frame.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let kind = match frame[1] {
        1 => Kind::Head,
        2 => Kind::Batch,
        3 => Kind::Scattered,
        _ => return Ok(None),
    };
    payload.clear();
    // A length that damage made does not ask for memory that the file cannot fill.
    let read = reader.by_ref().take(frame[2]).read_to_end(payload)? as u64;
    Ok((frame[0] == MAGIC && read == frame[2] && checksum(&frame, payload) == frame[3]).then_some(kind))
}

fn encode_head(run: &[(String, String)]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.list(run, |encoder, (name, value)| {
        encoder.text(name);
        encoder.text(value);
    });
    encoder.0
}

fn decode_head(payload: &[u8]) -> Option<Vec<(String, String)>> {
    Decoder(payload).list(|decoder| Some((decoder.text()?, decoder.text()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(law: &str) -> Vec<(String, String)> {
        [("version", "1"), ("law", law)].map(|(name, value)| (name.to_string(), value.to_string())).to_vec()
    }

    #[test]
    fn wherever_the_file_is_cut_whole_batches_stay_and_torn_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("fits.parquet");
        let payloads: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 10 + 7 * usize::from(i)]).collect();
        let mut ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
        let mut ends = vec![ledger.end];
        for payload in &payloads {
            ledger.keep(payload).expect("kept");
            ends.push(ledger.end);
        }
        let whole = std::fs::read(&ledger.path).expect("bytes");
        drop(ledger);
        for length in 0..=whole.len() {
            std::fs::write(Ledger::path_of(&out), &whole[..length]).expect("a file");
            let mut ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
            let expected = ends.iter().filter(|end| **end <= length as u64).count().saturating_sub(1);
            assert_eq!(ledger.batches(), expected, "cut at {length}");
            for index in 0..expected {
                assert_eq!(ledger.read(index).expect("a batch"), payloads[index]);
            }
            ledger.keep(b"next").expect("kept");
            drop(ledger);
            let mut again = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
            assert_eq!((again.batches(), again.read(expected).expect("a batch")), (expected + 1, b"next".to_vec()));
        }
        for at in ends[0] as usize..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(Ledger::path_of(&out), &damaged).expect("a file");
            let ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
            let expected = ends.iter().filter(|end| **end <= at as u64).count() - 1;
            assert_eq!(ledger.batches(), expected, "damaged at {at}");
        }
    }

    #[test]
    fn another_run_is_refused_with_what_differs_and_no_ledger_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("fits.parquet");
        drop(Ledger::open(&Ledger::path_of(&out), &run("hill")).expect("a ledger"));
        // In which nothing was finished.
        let mut ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
        ledger.keep(b"work").expect("kept");
        drop(ledger);
        let message = Ledger::open(&Ledger::path_of(&out), &run("hill")).expect_err("another").to_string();
        assert!(message.contains("another run: law was \"power\", and is \"hill\""), "{message}");
        let mut more = run("power");
        more.push(("seed".to_string(), "3".to_string()));
        let message = Ledger::open(&Ledger::path_of(&out), &more).expect_err("another").to_string();
        assert!(message.contains("seed was none, and is \"3\""), "{message}");
        for length in [1, 3, 100] {
            let foreign = vec![b'x'; length];
            std::fs::write(Ledger::path_of(&out), &foreign).expect("a file");
            let message = Ledger::open(&Ledger::path_of(&out), &run("power")).expect_err("no ledger").to_string();
            assert!(message.contains("not a ledger of sweepfit"), "{message}");
            assert_eq!(std::fs::read(Ledger::path_of(&out)).expect("bytes"), foreign);
        }
    }

    #[test]
    fn a_restart_voids_what_came_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("fits.parquet");
        let mut ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
        ledger.keep(b"void").expect("kept");
        ledger.restart("rows lie apart").expect("kept");
        ledger.keep(b"good").expect("kept");
        drop(ledger);
        let mut ledger = Ledger::open(&Ledger::path_of(&out), &run("power")).expect("a ledger");
        assert_eq!((ledger.batches(), ledger.scattered()), (1, Some("rows lie apart")));
        assert_eq!(ledger.read(0).expect("a batch"), b"good");
        ledger.remove().expect("removed");
        assert!(!Ledger::path_of(&out).exists());
    }
}
