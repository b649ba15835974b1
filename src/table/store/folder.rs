//! A folder of objects that are replaced together: the parts of a table.
//!
//! In: files here, by their names in the folder. Out: the folder with these parts and no others. A store cannot rename
//! folders, so new parts appear beside the old ones, under other names, and one object that lists the parts is replaced
//! then: before, the old table stands, after, the new one, and old parts go. What a run leaves behind that dies between the
//! first new part and the last old one is cleared away by the next.

use super::upload::{FAREWELL, Upload};
use super::{Location, again, reason, runtime, wait};
use crate::error::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Answer<T> = std::result::Result<T, object_store::Error>;

/// The object that lists the parts; in a folder on a disk the file that says that it is ours. Its name keeps readers of such
/// trees from it.
pub(in crate::table) const MARK: &str = "_sweepfit";
/// Parts that are sent at a time.
const AT_ONCE: usize = 4;
/// Bytes of a file that are taken into memory at a time.
const CHUNK: usize = 1 << 20;

/// A folder in a store that holds, or is to hold, a table in parts.
pub(in crate::table) struct Folder {
    /// Without a slash at its end.
    url: String,
    location: Location,
    /// The object that lists the parts.
    list: Key,
    before: Option<Listed>,
}

/// What the list says.
struct Listed {
    version: UpdateVersion,
    names: Vec<String>,
}

impl Folder {
    /// Looks whether the folder may be replaced.
    ///
    /// # Errors
    /// [`Error::Output`]: a web server, a folder that holds something else, a place that takes no uploads.
    pub fn open(text: &str) -> Result<Folder> {
        let url = text.trim_end_matches('/').to_string();
        let failed = |message: String| Error::Output { file: PathBuf::from(text), message };
        let unusable = |error: object_store::Error| failed(format!("cannot be written: {}", reason(&error)));
        let location = Location::of(&url).map_err(failed)?;
        if location.scheme == ObjectStoreScheme::Http {
            return Err(failed(
                "is on a web server, which holds no folders; a table in parts goes to a store or a disk".into(),
            ));
        }
        if location.key.parts().next().is_none() {
            return Err(failed("is a whole bucket, whose objects would be replaced; name a folder in it".into()));
        }
        let list = location.key.clone().join(MARK);
        let before = read_list(&*location.store, &list).map_err(unusable)?;
        let folder = Folder { url, location, list, before };
        if folder.before.is_none() && !folder.objects().map_err(unusable)?.is_empty() {
            return Err(failed(
                "holds other objects, among which a table in parts would not be told apart; empty it, or choose another \
                 folder with -o"
                    .into(),
            ));
        }
        // Asks for the right to write, before any work is done; dropped, it is given up.
        drop(Upload::create(&folder.url_of(MARK))?);
        Ok(folder)
    }

    fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    fn key_of(&self, name: &str) -> Key {
        // Names are taken as they stand, as those of all objects are.
        Key::parse(format!("{}/{name}", self.location.key)).unwrap_or_else(|_| self.location.key.clone().join(name))
    }

    fn objects(&self) -> Answer<Vec<ObjectMeta>> {
        again(|| wait(self.location.store.list(Some(&self.location.key)).try_collect()))
    }

    /// The names in the folder, but that of the list.
    fn names(&self) -> Answer<Vec<String>> {
        let inside = format!("{}/", self.location.key);
        let names = self.objects()?.into_iter().filter_map(|object| {
            let name = object.location.as_ref().strip_prefix(&inside)?.to_string();
            (object.location != self.list).then_some(name)
        });
        Ok(names.collect())
    }

    /// Puts `parts`, names in the folder and files here, in the place of those that stand there. A part whose name stands
    /// there already is the same: names differ where contents do ([`part_name`]).
    ///
    /// # Errors
    /// [`Error::Output`] with what was answered; the old table stands then, but where the message says that the new one does.
    pub fn replace(mut self, parts: &[(String, PathBuf)]) -> Result<()> {
        let failed = |folder: &Folder, message: String| Error::Output { file: folder.url.clone().into(), message };
        let unusable = |folder: &Folder, error: &object_store::Error| {
            failed(folder, format!("cannot be written: {}", reason(error)))
        };
        if self.before.is_none() {
            // From now on the folder is known as ours, whatever happens.
            self.before = Some(self.put_list(&[], PutMode::Create).map_err(|error| unusable(&self, &error))?);
        }
        let before = self.before.as_ref().expect("made above where there was none");
        let old: HashSet<&str> = before.names.iter().map(String::as_str).collect();
        let there = self.names().map_err(|error| unusable(&self, &error))?;
        // Of a run that died while its parts appeared.
        let stray: Vec<&str> =
            there.iter().map(String::as_str).filter(|name| is_part(name) && !old.contains(name)).collect();
        self.remove(&stray).map_err(|error| unusable(&self, &error))?;

        let wanted = |(name, _): &&(String, PathBuf)| !(old.contains(name.as_str()) && there.contains(name));
        let new: Vec<&(String, PathBuf)> = parts.iter().filter(wanted).collect();
        let sent = side_by_side(&new, |(name, file)| self.send(name, file))?;
        let appeared = Mutex::new(Vec::new());
        let sent: Vec<(&str, Mutex<Option<Upload>>)> =
            new.iter().zip(sent).map(|((name, _), upload)| (name.as_str(), Mutex::new(Some(upload)))).collect();
        let finished = side_by_side(&sent, |(name, upload)| {
            let upload = upload.lock().expect("one thread has it").take().expect("finished once");
            appeared.lock().expect("no thread panics").push(*name);
            upload.finish()
        });
        let names: Vec<String> = parts.iter().map(|(name, _)| name.clone()).collect();
        let listed = finished.and_then(|_| {
            let mode = PutMode::Update(before.version.clone());
            self.put_list(&names, mode).map(drop).map_err(|error| match error {
                object_store::Error::Precondition { .. } => {
                    failed(&self, "was written by another run meanwhile; its table stands, run again".into())
                }
                error => unusable(&self, &error),
            })
        });
        if let Err(error) = listed {
            // What cannot be removed now the next run removes.
            let appeared = appeared.into_inner().expect("no thread panics");
            let keys = self.keys_of(&appeared);
            let gone = delete(&*self.location.store, keys);
            let _ = runtime().block_on(async { tokio::time::timeout(FAREWELL, gone).await });
            return Err(error);
        }
        let now: HashSet<&str> = names.iter().map(String::as_str).collect();
        let past: Vec<&str> = before.names.iter().map(String::as_str).filter(|name| !now.contains(name)).collect();
        self.remove(&past).map_err(|error| {
            failed(
                &self,
                format!(
                    "holds the new table, but parts of the old one, which {} no longer lists, could not be removed: {}; the \
                     next run removes them",
                    self.list,
                    reason(&error)
                ),
            )
        })
    }

    /// Sends a file, which does not appear yet.
    fn send(&self, name: &str, file: &PathBuf) -> Result<Upload> {
        let url = self.url_of(name);
        let failed = |error: std::io::Error| Error::Output {
            file: url.clone().into(),
            message: format!("cannot be written: {error}"),
        };
        let mut upload = Upload::create(&url)?;
        let mut file = File::open(file).map_err(failed)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).map_err(failed)? {
                0 => break,
                length => upload.write_all(&chunk[..length]).map_err(failed)?,
            }
        }
        upload.send_rest().map_err(failed)?;
        Ok(upload)
    }

    fn put_list(&self, names: &[String], mode: PutMode) -> Answer<Listed> {
        let store = &*self.location.store;
        let text: String =
            std::iter::once(TITLE).chain(names.iter().map(String::as_str)).map(|l| format!("{l}\n")).collect();
        let put = |mode: PutMode| {
            let payload = PutPayload::from(text.clone().into_bytes());
            let options = PutOptions { mode, ..PutOptions::default() };
            again(|| wait(store.put_opts(&self.list, payload.clone(), options.clone())))
        };
        let answer = match put(mode) {
            // Of what speaks S3 not all know conditions.
            Err(object_store::Error::NotImplemented { .. }) => put(PutMode::Overwrite),
            Err(error) if error.to_string().contains("501 Not Implemented") => put(PutMode::Overwrite),
            other => other,
        };
        match answer {
            Ok(put) => {
                Ok(Listed { version: UpdateVersion { e_tag: put.e_tag, version: put.version }, names: names.to_vec() })
            }
            // The answer to a request that was heard may have been lost.
            Err(error) => match read_list(store, &self.list) {
                Ok(Some(listed)) if listed.names == names => Ok(listed),
                _ => Err(error),
            },
        }
    }

    fn keys_of(&self, names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| self.key_of(name)).collect()
    }

    fn remove(&self, names: &[&str]) -> Answer<()> {
        if names.is_empty() {
            return Ok(());
        }
        again(|| wait(delete(&*self.location.store, self.keys_of(names))))
    }
}

/// What a part is called in a store: other contents, another name.
pub(in crate::table) fn part_name(name: &Path, content: u64) -> String {
    let parts: Vec<String> = name.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let name = parts.join("/");
    format!("{}-{content:016x}.parquet", name.trim_end_matches(".parquet"))
}

/// Whether a name in a store is that of a part.
fn is_part(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    let inner = file.strip_prefix("part-").and_then(|rest| rest.strip_suffix(".parquet"));
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    inner.and_then(|inner| inner.split_once('-')).is_some_and(|(number, content)| {
        number.len() >= 5
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && content.len() == 16
            && hexadecimal(content)
    })
}

/// Of objects listed below a key, those that are no parts which their folder's list does not name: parts of another state
/// of the table, left by a run that died.
///
/// # Errors
/// What the store answers.
pub(super) fn without_strays(store: &dyn ObjectStore, objects: Vec<ObjectMeta>) -> Answer<Vec<ObjectMeta>> {
    let mut lists: Vec<(String, HashSet<String>)> = Vec::new();
    for object in objects.iter().filter(|object| object.location.filename() == Some(MARK)) {
        let folder = object.location.as_ref()[..object.location.as_ref().len() - MARK.len()].to_string();
        if let Some(listed) = read_list(store, &object.location)? {
            lists.push((folder, listed.names.into_iter().collect()));
        }
    }
    let is_stray = |object: &ObjectMeta| {
        let in_folder = |(folder, names): &(String, HashSet<String>)| {
            object
                .location
                .as_ref()
                .strip_prefix(folder.as_str())
                .is_some_and(|name| is_part(name) && !names.contains(name))
        };
        lists.iter().any(in_folder)
    };
    Ok(objects.into_iter().filter(|object| !is_stray(object)).collect())
}

/// The first line of the list, for people.
const TITLE: &str = "A table of fits in parts, written by sweepfit. Its parts:";

fn read_list(store: &dyn ObjectStore, list: &Key) -> Answer<Option<Listed>> {
    let found = again(|| {
        wait(async {
            let found = store.get(list).await?;
            let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok((version, found.bytes().await?))
        })
    });
    match found {
        Ok((version, bytes)) => {
            let text = String::from_utf8_lossy(&bytes);
            let names = text.lines().skip(1).filter(|line| !line.is_empty()).map(String::from).collect();
            Ok(Some(Listed { version, names }))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes objects; one that is gone already is no error.
async fn delete(store: &dyn ObjectStore, keys: Vec<Key>) -> Answer<()> {
    let mut gone = store.delete_stream(stream::iter(keys.into_iter().map(Ok)).boxed());
    while let Some(answer) = gone.next().await {
        match answer {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Does something with each of many, a few at a time; the answers in order, or the first error.
fn side_by_side<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let (answers, wrong) = (Mutex::new(Vec::with_capacity(items.len())), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while wrong.lock().expect("no thread panics").is_none() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    match work(item) {
                        Ok(answer) => answers.lock().expect("no thread panics").push((index, answer)),
                        Err(error) => drop(wrong.lock().expect("no thread panics").get_or_insert(error)),
                    }
                }
            });
        }
    });
    if let Some(error) = wrong.into_inner().expect("no thread panics") {
        return Err(error);
    }
    let mut answers = answers.into_inner().expect("no thread panics");
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_a_store_are_known_by_their_names() {
        let name = part_name(&Path::new("law=power").join("part-00007.parquet"), 0xabc);
        assert_eq!(name, "law=power/part-00007-0000000000000abc.parquet");
        for (name, expected) in [
            (name.as_str(), true),
            ("part-00000-0123456789abcdef.parquet", true),
            ("part-00000.parquet", false),
            ("part-00000-0123456789abcdef-c000.snappy.parquet", false),
            ("part-00000-0123456789ABCDEF.parquet", false),
            ("_sweepfit", false),
            ("thesis.parquet", false),
        ] {
            assert_eq!(is_part(name), expected, "{name}");
        }
    }
}
