//! Records of Parquet.
//!
//! The reader of these files panics at some damaged ones, and takes as much memory as others say. A panic is
//! caught here, and sizes are checked against the file before memory is taken for them.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as Parsed};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{
    ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader,
};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, Type};

use super::record::Raw;
use super::row::object;
use super::{Meter, Place, Record, SourceError, files};

/// Bytes of a page once they are decompressed, at most; writers cut pages at about one MiB.
const MOST_PAGE: u64 = 1 << 28;

/// Calls `each` with every row.
pub(super) fn records(
    path: &Path,
    meter: &Meter,
    each: &mut dyn FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let malformed = |problem: String| SourceError::Malformed {
        path: path.into(),
        problem: format!("not Parquet that can be read: {problem}"),
    };
    let (file, bytes) = files::open_on_disk(path).map_err(|source| SourceError::Io {
        path: path.into(),
        source,
    })?;
    let chunks = Chunks { file, bytes };
    let reader = caught(|| SerializedFileReader::new(chunks)).map_err(malformed)?;
    caught(|| check(reader.metadata(), bytes)).map_err(malformed)?;
    let file: Arc<Path> = path.into();
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group = caught(|| reader.get_row_group(group)).map_err(malformed)?;
        let packed = group.metadata().compressed_size();
        let group = Group(group);
        let mut rows = caught(|| group.get_row_iter(None)).map_err(malformed)?;
        while let Some(row) = caught(|| rows.next().transpose()).map_err(malformed)? {
            number += 1;
            each(Record {
                place: Place {
                    file: file.clone(),
                    number,
                    unit: "row",
                },
                fields: object(&row),
                raw: Raw::Row(row),
            })?;
        }
        meter.add(u64::try_from(packed).unwrap_or(0));
    }
    Ok(())
}

/// Refuses what cannot be: columns of one name, or beyond the file's end, or without a value for every row.
fn check(file: &ParquetMetaData, bytes: u64) -> Parsed<()> {
    let bad = |problem: String| Err(ParquetError::General(problem));
    let columns = file
        .file_metadata()
        .schema_descr()
        .root_schema()
        .get_fields();
    for (i, column) in columns.iter().enumerate() {
        let name = column.name();
        if columns[..i].iter().any(|before| before.name() == name) {
            return bad(format!("two columns are named `{name}`; rename one"));
        }
    }
    let mut rows = 0;
    for group in file.row_groups() {
        rows += group.num_rows();
        if group.num_rows() < 0 || group.columns().is_empty() {
            return bad("a group of rows without columns".into());
        }
        for column in group.columns() {
            let (start, len) = column.byte_range();
            if start.checked_add(len).is_none_or(|end| end > bytes) {
                return bad("a column goes beyond the file's end".into());
            }
            let of_rows = column.column_descr().max_rep_level() == 0;
            if of_rows && column.num_values() != group.num_rows() {
                return bad("a column has not a value for every row".into());
            }
        }
    }
    match rows == file.file_metadata().num_rows() {
        true => Ok(()),
        false => bad("its groups of rows have not as many as the file".into()),
    }
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is caught and told as an error, so that no hook need tell it.
pub fn panics_are_caught() -> bool {
    CATCHING.get()
}

/// Does what may panic, and says in words why it failed.
fn caught<T>(work: impl FnOnce() -> Parsed<T>) -> Result<T, String> {
    CATCHING.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text: String = text.unwrap_or_default().chars().take(80).collect();
            Err(format!("it is damaged: {text}"))
        }
    }
}

/// A file whose pages are looked at before memory is taken for them.
struct Chunks {
    file: File,
    bytes: u64,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Parsed<Self::T> {
        // The last 8 bytes are the file's own; all else that is read this way are headers of pages.
        if start.saturating_add(8) < self.bytes {
            let mut header = [0; 32];
            let mut read = self.file.get_read(start)?;
            let mut len = 0;
            while let n @ 1.. = read.read(&mut header[len..])? {
                len += n;
            }
            check_page(&header[..len])?;
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Parsed<Bytes> {
        match start.checked_add(length as u64) {
            Some(end) if end <= self.bytes => self.file.get_bytes(start, length),
            _ => Err(ParquetError::General(
                "it goes on beyond the file's end".into(),
            )),
        }
    }
}

/// Refuses pages that are too large: the header begins with the kind and the sizes, decompressed and compressed.
fn check_page(header: &[u8]) -> Parsed<()> {
    /// A field of a compact Thrift struct: the one after that before it, an i32.
    const NEXT_I32: u8 = 0x15;
    let bad = |what: &str| Err(ParquetError::General(what.into()));
    let mut header = header.iter().copied();
    for _ in 0..3 {
        let (Some(NEXT_I32), Some(number)) = (header.next(), varint(&mut header)) else {
            return bad("the header of a page is none");
        };
        // Zigzag: odd ones are negative.
        if number % 2 == 1 || number / 2 > MOST_PAGE {
            return bad("a page is larger than 256 MiB; write the file anew with smaller pages");
        }
    }
    Ok(())
}

/// A number of 7 bits a byte, the low ones first.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A group of rows whose pages are looked at.
struct Group<'a>(Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Parsed<Box<dyn PageReader>> {
        Ok(Box::new(Pages {
            inner: self.0.get_column_page_reader(column)?,
            column: self.metadata().schema_descr().column(column),
        }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Parsed<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// Pages of a column, none of which claims more values than it holds.
struct Pages {
    inner: Box<dyn PageReader>,
    column: ColumnDescPtr,
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Parsed<Option<Page>> {
        let page = self.inner.get_next_page()?;
        match page
            .as_ref()
            .is_none_or(|page| is_filled(page, &self.column))
        {
            true => Ok(page),
            false => Err(ParquetError::General(
                "a page claims values that it does not hold".into(),
            )),
        }
    }

    fn peek_next_page(&mut self) -> Parsed<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Parsed<()> {
        self.inner.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Parsed<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Whether a page has as many values as memory would be taken for.
fn is_filled(page: &Page, column: &ColumnDescriptor) -> bool {
    let count = page.num_values() as usize;
    match (page, page.encoding()) {
        (Page::DictionaryPage { buf, .. }, _) => {
            let bytes = match column.physical_type() {
                PhysicalType::BOOLEAN => 0,
                PhysicalType::INT32 | PhysicalType::FLOAT | PhysicalType::BYTE_ARRAY => 4,
                PhysicalType::INT64 | PhysicalType::DOUBLE => 8,
                PhysicalType::INT96 => 12,
                PhysicalType::FIXED_LEN_BYTE_ARRAY => column.type_length().max(1) as usize,
            };
            count.saturating_mul(bytes) <= buf.len() && (bytes > 0 || count <= 2)
        }
        (_, Encoding::DELTA_LENGTH_BYTE_ARRAY) => {
            values(page, column).is_some_and(|values| delta(values, count).is_some())
        }
        (_, Encoding::DELTA_BYTE_ARRAY) => {
            let rest = values(page, column).and_then(|values| delta(values, count));
            rest.is_some_and(|rest| delta(rest, count).is_some())
        }
        _ => true,
    }
}

/// What stands after the levels of a page of data.
fn values<'a>(page: &'a Page, column: &ColumnDescriptor) -> Option<&'a [u8]> {
    match page {
        Page::DataPageV2 {
            buf,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => buf.get((def_levels_byte_len + rep_levels_byte_len) as usize..),
        Page::DataPage { buf, .. } => {
            let levels = [column.max_rep_level(), column.max_def_level()];
            let mut rest = &buf[..];
            for _ in levels.into_iter().filter(|&most| most > 0) {
                let (len, after) = rest.split_first_chunk::<4>()?;
                rest = after.get(u32::from_le_bytes(*len) as usize..)?;
            }
            Some(rest)
        }
        Page::DictionaryPage { .. } => None,
    }
}

/// What stands after integers in DELTA_BINARY_PACKED, if there are no more than `most` of them.
fn delta(bytes: &[u8], most: usize) -> Option<&[u8]> {
    let mut rest = bytes.iter().copied();
    let mut number = || varint(&mut rest);
    let (block, parts, count) = (number()?, number()?, number()?);
    number()?;
    if count > most as u64 || parts == 0 || block > 1 << 20 || parts > block {
        return None;
    }
    let each = block / parts;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(&mut rest)?;
        let widths: Vec<u8> = rest.by_ref().take(parts as usize).collect();
        for width in widths {
            if left > 0 {
                let bytes = u64::from(width) * each / 8;
                if bytes > 0 {
                    rest.nth(bytes as usize - 1)?;
                }
                left = left.saturating_sub(each);
            }
        }
    }
    bytes.get(bytes.len() - rest.len()..)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Content, Fields, read};
    use super::*;
    use crate::data::read_questions;
    use serde_json::Value;

    fn fixture(name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parquet");
        folder.join(name).with_extension("parquet")
    }

    /// The hub's newer sets are compressed with zstd, and others with whatever their makers like.
    #[test]
    fn every_compression_and_encoding_is_read() {
        for name in ["zstd", "gzip", "brotli", "lz4"] {
            let questions = read_questions(&fixture(name)).unwrap();
            assert_eq!(questions.len(), 1, "{name}");
            assert!(questions[0].question.ends_with("2 + 2? "), "{name}");
            assert_eq!(questions[0].choices, ["4", "5"], "{name}");
        }
        for name in ["delta", "lengths"] {
            let mut rows = Vec::new();
            records(&fixture(name), &Meter::default(), &mut |record| {
                rows.push(record.fields["text"].clone());
                Ok(())
            })
            .unwrap();
            assert_eq!(rows.len(), 301, "{name}");
            assert_eq!(
                (&rows[299], &rows[300]),
                (&"number 299, of 2 kinds".into(), &Value::Null)
            );
        }
        let error = read(&fixture("two"), &Fields::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("two columns are named `text`"), "{error}");
    }

    /// A damaged file must be told by its name: neither a panic, nor all memory, nor other rows in silence.
    #[test]
    fn damaged_files_end_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let (mut random, mut panics, mut refused) = (0x2545_f491_4f6c_dd1d_u64, 0, 0);
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for name in [
            "arc", "mmlu", "chat", "zstd", "gzip", "brotli", "lz4", "delta", "lengths",
        ] {
            let whole = std::fs::read(fixture(name)).unwrap();
            for _ in 0..400 {
                let mut bytes = whole.clone();
                for _ in 0..=draw(2) {
                    let at = draw(bytes.len());
                    bytes[at] = [0, 0xff, 0x7f, bytes[at] ^ 1 << draw(8)][draw(4)];
                }
                if draw(10) == 0 {
                    bytes.truncate(draw(bytes.len()));
                }
                std::fs::write(&path, &bytes).unwrap();
                if let Err(error) = records(&path, &Meter::default(), &mut |_| Ok(())) {
                    let error = error.to_string();
                    assert!(error.starts_with(&path.display().to_string()), "{error}");
                    panics += usize::from(error.contains("it is damaged: "));
                    refused += 1;
                }
            }
        }
        // Else nothing was tried.
        assert!(
            panics > 0 && refused > 1000,
            "{panics} panics, {refused} refused"
        );
        assert!(!panics_are_caught());
    }

    /// Else a file of a few bytes could take all memory there is.
    #[test]
    fn sizes_that_a_file_only_claims_are_refused() {
        let size = |bytes: &[u8]| check_page(bytes).map_err(|error| error.to_string());
        assert_eq!(size(&[0x15, 0, 0x15, 0x80, 1, 0x15, 2, 0x2c]), Ok(()));
        for bad in [
            &[0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 2][..],
            &[0x15, 0, 0x15, 2, 0x15, 3],
            &[0x15, 0, 0x15],
            &[0x25, 0, 0x15, 2, 0x15, 2],
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        // Blocks of 128 in 4 parts, two numbers, then one block of which one part is there.
        let packed = [0x80, 1, 4, 2, 6, 0, 8, 8, 8, 8];
        let bytes = [&packed[..], &[0; 32], b"rest"].concat();
        assert_eq!(delta(&bytes, 2), Some(&b"rest"[..]));
        assert_eq!(delta(&bytes, 1), None);
        assert_eq!(delta(&bytes[..20], 2), None);
        let claimed = [0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 6];
        assert_eq!(delta(&claimed, 300), None);
        let texts = read(&fixture("chat"), &Fields::default()).unwrap();
        assert!(matches!(texts[0].content, Content::Chat(_)));
    }
}
