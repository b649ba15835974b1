//! Arrow IPC files and streams: their schema, and whether the sizes that they claim can be true.
//!
//! A compressed buffer begins with its size after decompression. The decoder allocates that much before it looks at the
//! data, and an allocation that fails ends the process; so the claims of all buffers are looked at first, which reads a
//! few bytes per column and batch and no data.

use super::content::{Content, Stream};
use super::guard::decoding;
use super::source::Format;
use crate::error::Result;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow::ipc::{Message, root_as_footer, root_as_message};
use std::io::{BufReader, Error, ErrorKind, Read, Seek, SeekFrom};

/// The best that the two codecs reach, on constant data (LZ4 255:1, Zstandard about 32,000:1), with a margin.
const BEST_COMPRESSION: u64 = 1 << 16;

/// Opens a file with a footer.
pub(super) fn open_file(content: &Content) -> Result<(Format, SchemaRef)> {
    content.copy_here()?;
    let path = &content.name;
    let mut reader = BufReader::new(decoding(path, || content.stream())?);
    decoding(path, || check_file(&mut reader))?;
    let reader = decoding(path, || FileReader::try_new(reader, None))?;
    Ok((Format::ArrowFile, reader.schema()))
}

/// Opens a stream of messages without a footer.
pub(super) fn open_stream(content: &Content) -> Result<(Format, SchemaRef)> {
    content.copy_here()?;
    let path = &content.name;
    let mut reader = BufReader::new(decoding(path, || content.stream())?);
    decoding(path, || check_stream(&mut reader))?;
    decoding(path, || reader.seek(SeekFrom::Start(0)))?;
    let reader = decoding(path, || StreamReader::try_new(reader, None))?;
    Ok((Format::ArrowStream, reader.schema()))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_string())
}

fn check_file(bytes: &mut BufReader<Stream>) -> std::io::Result<()> {
    let mut end = [0; 10];
    bytes.seek(SeekFrom::End(-10))?;
    bytes.read_exact(&mut end)?;
    let length = read_footer_length(end).map_err(wrong)?;
    let mut footer = Vec::new();
    bytes.seek(SeekFrom::End(-10 - length as i64))?;
    bytes.take(length as u64).read_to_end(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(wrong)?;
    for block in footer.dictionaries().iter().chain(&footer.recordBatches()).flatten() {
        let start = u64::try_from(block.offset()).map_err(wrong)?;
        let length = u64::try_from(block.metaDataLength()).map_err(wrong)?;
        let mut metadata = Vec::new();
        bytes.seek(SeekFrom::Start(start))?;
        bytes.take(length).read_to_end(&mut metadata)?;
        // The length of the message comes first, in newer files behind a mark.
        let message = match metadata.get(..4) {
            Some([0xff, 0xff, 0xff, 0xff]) => metadata.get(8..),
            _ => metadata.get(4..),
        };
        let message = root_as_message(message.unwrap_or_default()).map_err(wrong)?;
        check_message(bytes, &message, start.saturating_add(length))?;
    }
    Ok(())
}

fn check_stream(bytes: &mut BufReader<Stream>) -> std::io::Result<()> {
    let mut at = 0u64;
    loop {
        let mut word = [0; 4];
        bytes.seek(SeekFrom::Start(at))?;
        for mark in [true, false] {
            match bytes.read_exact(&mut word) {
                // A stream may end without saying so.
                Err(error) if mark && error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            at += 4;
            if word != [0xff; 4] {
                break;
            }
        }
        let length = u64::from(u32::from_le_bytes(word));
        if length == 0 {
            return Ok(());
        }
        let mut metadata = Vec::new();
        bytes.take(length).read_to_end(&mut metadata)?;
        let message = root_as_message(&metadata).map_err(wrong)?;
        at = at.saturating_add(length);
        check_message(bytes, &message, at)?;
        at = at.saturating_add(u64::try_from(message.bodyLength()).map_err(wrong)?);
    }
}

/// Looks at what the compressed buffers of a message, whose body begins at `body`, claim.
fn check_message(bytes: &mut BufReader<Stream>, message: &Message<'_>, body: u64) -> std::io::Result<()> {
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Ok(()) };
    if batch.compression().is_none() {
        return Ok(());
    }
    for buffer in batch.buffers().iter().flatten() {
        let (offset, length) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length()));
        let (offset, length) = (offset.map_err(wrong)?, length.map_err(wrong)?);
        if length < 8 {
            continue;
        }
        let mut claim = [0; 8];
        bytes.seek(SeekFrom::Start(body.saturating_add(offset)))?;
        bytes.read_exact(&mut claim)?;
        // −1: this buffer is not compressed after all.
        let Ok(claim) = u64::try_from(i64::from_le_bytes(claim)) else { continue };
        let room = usize::try_from(claim).map_err(wrong)?;
        if claim / BEST_COMPRESSION > length || Vec::<u8>::new().try_reserve_exact(room).is_err() {
            return Err(wrong(format!("a buffer of {length} bytes claims to hold {claim}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::testing::*;
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use std::fs::File;

    #[test]
    fn compressed_buffers_are_read_and_impossible_sizes_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let all = numbers_table(&[("y", &values)]);
        for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            let options = IpcWriteOptions::default().try_with_compression(Some(codec)).expect("a known codec");
            let (file, stream) = (folder.path().join("t.arrow"), folder.path().join("t.arrows"));
            let bytes = File::create(&file).expect("a file");
            let mut writer = FileWriter::try_new_with_options(bytes, &all.schema(), options.clone()).expect("a writer");
            writer.write(&all).expect("rows");
            writer.finish().expect("a footer");
            let bytes = File::create(&stream).expect("a file");
            let mut writer = StreamWriter::try_new_with_options(bytes, &all.schema(), options).expect("a writer");
            writer.write(&all).expect("rows");
            writer.finish().expect("an end");
            for path in [&file, &stream] {
                let (batches, _) = read_all(&[path], &selection(&[], &["y"], ""), 1).expect("a curve");
                assert_eq!(batches[0].curves.columns[0], values);
                // The claim of 8,000 bytes becomes one of 2^56 and more.
                let mut bytes = std::fs::read(path).expect("bytes");
                let claim = bytes.windows(8).position(|window| window == 8000u64.to_le_bytes()).expect("a claim");
                bytes[claim + 7] = 1;
                std::fs::write(path, bytes).expect("a file");
                let error = Source::open(&[path.display().to_string()]).expect_err("too much").to_string();
                assert!(error.contains("claims to hold"), "{error}");
            }
        }
    }
}
