//! Places of files, here and in stores: one place under several spellings, and options that must not name one place.

use std::path::{Path, PathBuf};
use sweepfit::table::is_named_as_table;
use sweepfit::{Error, Result};

/// An option and the place that it names.
pub type Named<'a> = (&'static str, &'a str);

/// Refuses options that would write one place, of which the last would be left.
///
/// # Errors
/// [`Error::Usage`] with both options.
pub fn refuse_shared(written: &[Named]) -> Result<()> {
    for (index, (option, text)) in written.iter().enumerate().filter(|(_, (_, text))| !is_device(text)) {
        if let Some((other, _)) = written[..index].iter().find(|(_, other)| place(other) == place(text)) {
            return Err(Error::Usage(format!(
                "{other} and {option} both name {text}, and one would write over the other: give each a file of its own"
            )));
        }
    }
    Ok(())
}

/// Refuses to write over what is read: the files, folders and patterns `read`.
///
/// # Errors
/// [`Error::Output`] with the option that names it.
pub fn refuse_over(read: &[&str], written: &[Named]) -> Result<()> {
    for (option, text) in written.iter().filter(|(_, text)| !is_device(text)) {
        // Of a folder tables are read, and no other files that lie there.
        let is_read = |read: &&&str| {
            let in_folder = Path::new(read).is_dir() || read.ends_with('/');
            covers(read, text) && (!in_folder || is_named_as_table(Path::new(text)))
        };
        if let Some(read) = read.iter().find(is_read) {
            let what = if place(read) == place(text) { "is read".to_string() } else { format!("is read with {read}") };
            let message = format!("{what} and would be written over; choose another place with {option}");
            return Err(Error::Output { file: PathBuf::from(text), message });
        }
    }
    Ok(())
}

/// Whether the input `read` is or holds the file `written`: the file itself, a folder above it, a pattern that it matches.
pub fn covers(read: &str, written: &str) -> bool {
    let (input, output) = (place(read), place(written));
    let in_folder = || !read.is_empty() && output.starts_with(&input);
    let matches = || {
        read.contains(['*', '?', '['])
            && glob::Pattern::new(&input.to_string_lossy()).is_ok_and(|pattern| pattern.matches_path(&output))
    };
    input == output || in_folder() || matches()
}

/// A path by which two spellings of one place can be told to be one; what stands in no file system stays as it is.
pub fn place(text: &str) -> PathBuf {
    if text == "-" || text.contains("://") {
        return PathBuf::from(text);
    }
    let path = Path::new(text);
    if let Ok(path) = std::fs::canonicalize(path) {
        return path;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (std::fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
    }
}

/// What is there and no file, such as `/dev/null`, may be written to by all.
pub fn is_device(text: &str) -> bool {
    std::fs::metadata(text).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_recognised_in_other_spellings_folders_and_patterns() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(folder.path().join("sub")).expect("a folder");
        for (read, written, expected) in [
            (at("a.parquet"), at("a.parquet"), true),
            (at("sub/../a.parquet"), at("a.parquet"), true),
            (at("sub"), at("sub/a.parquet"), true),
            (at("sub/*.parquet"), at("sub/a.parquet"), true),
            (at("sub/*.csv"), at("sub/a.parquet"), false),
            (at("su"), at("sub/a.parquet"), false),
            ("s3://b/k/".into(), "s3://b/k/a.parquet".into(), true),
            ("tokens=1e12".into(), at("a.parquet"), false),
            (String::new(), at("a.parquet"), false),
        ] {
            assert_eq!(covers(&read, &written), expected, "{read} {written}");
        }
    }
}
