//! Keys of curves: where they change from row to row, how two are compared, how they are shown and written back.
//!
//! In: the key columns of a stretch of rows in any type that can be a key. Out: the rows at which a new key begins, and
//! the keys in a form of bytes that are equal exactly where the keys are (Arrow's row format, after −0 was made 0 and
//! every NaN the same one). Null is a key of its own. Knows nothing of numbers and files.

use super::source::{Place, Source};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{ArrowNativeType, DataType, Float16Type, Float32Type, Float64Type, Int32Type, i256};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::hash::Hasher;
use std::sync::Arc;

/// The names and types of the key columns, as they are written.
///
/// Types are those of the input, with one exception: a dictionary of anything but text is written as the values that it
/// stands for, and the index type of a dictionary of text becomes Int32, since Parquet keeps no other.
#[derive(Debug, Clone)]
pub struct KeySchema {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Vec<String>,
    /// As written.
    output: Vec<DataType>,
    /// As compared: dictionaries by their values, all layouts of text as Utf8.
    compared: Vec<DataType>,
    converter: RowConverter,
}

/// The keys of a batch's curves, one row per curve.
#[derive(Debug, Clone)]
pub struct Keys {
    schema: KeySchema,
    columns: Vec<ArrayRef>,
    length: usize,
    /// How many curves of the input came before, to name curves that have no key.
    first: u64,
}

impl KeySchema {
    /// Looks the key columns up in every file.
    ///
    /// # Errors
    /// A name that is missing or given twice, a type that cannot be a key, files that disagree.
    pub(super) fn new(source: &Source, names: &[String]) -> Result<KeySchema> {
        let mut output = Vec::with_capacity(names.len());
        let mut compared: Vec<DataType> = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(Error::Usage(format!("--by names \"{name}\" twice; name each key column once")));
            }
            let mut first: Option<DataType> = None;
            for file in source.tables() {
                let place = file.place(name)?;
                let data_type = match (place, &first) {
                    (Some(place), _) => file.data_type(place),
                    (None, None) => return Err(source.missing(name)),
                    (None, Some(_)) => {
                        return Err(Error::Input {
                            file: file.path.clone(),
                            message: format!("has no column \"{name}\", which other files of the input have"),
                        });
                    }
                };
                if data_type_compared(&data_type).is_nested() {
                    return Err(Error::Column {
                        column: name.clone(),
                        message: format!(
                            "is {data_type}; a key must be text, a number, a boolean or a time (choose another with --by)"
                        ),
                    });
                }
                let type_compared = data_type_compared(&data_type);
                match &first {
                    None => {
                        let place_is_text = matches!(place, Some(Place::Partition(_)));
                        output.push(if place_is_text { data_type.clone() } else { data_type_written(&data_type) });
                        compared.push(type_compared);
                        first = Some(data_type);
                    }
                    Some(first) if compared[index] != type_compared => {
                        return Err(Error::Input {
                            file: file.path.clone(),
                            message: format!(
                                "column \"{name}\" is {data_type} here and {first} in {}; write both in one type",
                                source.files()[0].display()
                            ),
                        });
                    }
                    Some(_) => {}
                }
            }
            if first.is_none() {
                return Err(source.missing(name));
            }
        }
        let fields = compared.iter().cloned().map(SortField::new).collect();
        let converter = RowConverter::new(fields).map_err(impossible)?;
        Ok(KeySchema { inner: Arc::new(Inner { names: names.to_vec(), output, compared, converter }) })
    }

    /// The names of the key columns.
    pub fn names(&self) -> &[String] {
        &self.inner.names
    }

    pub(super) fn types(&self) -> &[DataType] {
        &self.inner.output
    }

    /// No keys yet.
    pub(super) fn no_keys(&self) -> Rows {
        self.inner.converter.empty_rows(0, 0)
    }

    /// The keys of the rows `at`, as bytes, with a hash of each.
    pub(super) fn encode(
        &self,
        columns: &[ArrayRef],
        at: Vec<u32>,
    ) -> std::result::Result<(Rows, Vec<u64>), ArrowError> {
        let rows = self.encode_unhashed(columns, at)?;
        let hashes = rows.iter().map(|row| hash(row.data())).collect();
        Ok((rows, hashes))
    }

    /// The keys of the rows `at`, as bytes.
    pub(super) fn encode_unhashed(&self, columns: &[ArrayRef], at: Vec<u32>) -> std::result::Result<Rows, ArrowError> {
        let at = UInt32Array::from(at);
        let compared = columns.iter().zip(&self.inner.compared).map(|(column, data_type)| {
            let taken = take(column, &at, None)?;
            let taken = if taken.data_type() == data_type { taken } else { cast(&taken, data_type)? };
            Ok(with_one_zero_and_one_nan(&taken))
        });
        let compared = compared.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
        self.inner.converter.convert_columns(&compared)
    }

    /// The keys as columns again, in the types in which they are written.
    pub(super) fn decode(&self, rows: &Rows, length: usize, first: u64) -> std::result::Result<Keys, ArrowError> {
        let mut columns = Vec::with_capacity(self.inner.output.len());
        if !self.inner.output.is_empty() {
            for (column, data_type) in self.inner.converter.convert_rows(rows)?.iter().zip(&self.inner.output) {
                columns.push(cast(column, data_type)?);
            }
        }
        Ok(Keys { schema: self.clone(), columns, length, first })
    }
}

impl Keys {
    /// How many curves.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no curve.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The names and types of the key columns.
    pub fn schema(&self) -> &KeySchema {
        &self.schema
    }

    /// The key of curve `index` for messages: `config=a, bootstrap=3`; without keys its number, counted from 1.
    pub fn describe(&self, index: usize) -> String {
        if self.columns.is_empty() {
            return format!("curve {}", self.first + index as u64 + 1);
        }
        let options = FormatOptions::default().with_null("null");
        let parts = self.schema.names().iter().zip(&self.columns).map(|(name, column)| {
            let value =
                ArrayFormatter::try_new(column.as_ref(), &options).map(|format| format.value(index).to_string());
            format!("{name}={}", value.unwrap_or_else(|_| "?".to_string()))
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The keys at `rows`, in that order; a row may come several times.
    pub fn take(&self, rows: &[u32]) -> Keys {
        let at = UInt32Array::from(rows.to_vec());
        let taken = |column: &ArrayRef| take(column, &at, None).expect("rows of these keys");
        let columns = self.columns.iter().map(taken).collect();
        Keys { schema: self.schema.clone(), columns, length: rows.len(), first: self.first }
    }

    /// Consecutive keys.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Keys {
        let columns = self.columns.iter().map(|column| column.slice(rows.start, rows.len())).collect();
        let first = self.first + rows.start as u64;
        Keys { schema: self.schema.clone(), columns, length: rows.len(), first }
    }

    pub(super) fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }
}

/// An error of a conversion between types that were checked before.
fn impossible(error: ArrowError) -> Error {
    Error::Usage(format!("--by: {error}"))
}

/// All layouts of text compare alike, dictionaries by what they stand for.
pub(super) fn data_type_compared(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => data_type_compared(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        other => other.clone(),
    }
}

fn data_type_written(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) if matches!(**value, DataType::Utf8 | DataType::LargeUtf8) => {
            DataType::Dictionary(Box::new(DataType::Int32), value.clone())
        }
        DataType::Dictionary(_, value) => data_type_written(value),
        other => other.clone(),
    }
}

/// The hasher of the standard library with its fixed keys: the same for the same key all through a run.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Floats as keys: −0 is 0, and there is one NaN.
fn with_one_zero_and_one_nan(array: &ArrayRef) -> ArrayRef {
    // −0 + 0 = 0 in every rounding mode in use.
    match array.data_type() {
        DataType::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(one)) as ArrayRef
        }
        DataType::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float16 => {
            type Half = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native;
            let one = |v: Half| if v.is_nan() { Half::NAN } else { v + Half::from_f32_const(0.0) };
            Arc::new(array.as_primitive::<Float16Type>().unary::<_, Float16Type>(one))
        }
        _ => array.clone(),
    }
}

/// The rows at which a new key begins, the first one included; empty where there are no rows.
pub(super) fn starts(columns: &[ArrayRef], rows: usize) -> std::result::Result<Vec<u32>, ArrowError> {
    let mut changed = vec![false; rows];
    if let Some(first) = changed.first_mut() {
        *first = true;
    }
    for column in columns {
        mark_changes(column, &mut changed)?;
    }
    // Row numbers of one batch fit 32 bits: Arrow's own offsets do.
    Ok(marked(&changed).map(|row| row as u32).collect())
}

/// Where the marks are; most rows have none, and eight are passed over at a time.
fn marked(marks: &[bool]) -> impl Iterator<Item = usize> {
    marks
        .chunks(8)
        .enumerate()
        .filter(|(_, eight)| eight.iter().fold(false, |any, &mark| any | mark))
        .flat_map(|(index, eight)| (0..eight.len()).filter(|&place| eight[place]).map(move |place| 8 * index + place))
}

/// Sets `changed[i]` where row `i` differs from row `i − 1`.
fn mark_changes(column: &ArrayRef, changed: &mut [bool]) -> std::result::Result<(), ArrowError> {
    if changed.len() < 2 {
        return Ok(());
    }
    match column.data_type() {
        DataType::Null => {}
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let column = with_one_zero_and_one_nan(column);
            mark_by_bits(&column, changed);
        }
        DataType::Utf8 => {
            let (offsets, bytes) = (column.as_string::<i32>().value_offsets(), column.as_string::<i32>().value_data());
            mark(column.nulls(), changed, |row| bytes_differ(offsets, bytes, row));
        }
        DataType::LargeUtf8 => {
            let (offsets, bytes) = (column.as_string::<i64>().value_offsets(), column.as_string::<i64>().value_data());
            mark(column.nulls(), changed, |row| bytes_differ(offsets, bytes, row));
        }
        DataType::Utf8View => {
            // A view holds the length and either the text or its first bytes and place: equal views, equal texts.
            let texts = column.as_string_view();
            let views = texts.views();
            mark(column.nulls(), changed, |row| {
                let (before, this) = (views[row - 1], views[row]);
                before != this
                    && (before as u64 != this as u64
                        || this as u32 <= INLINE
                        || texts.value(row - 1) != texts.value(row))
            });
        }
        DataType::Boolean => {
            let values = column.as_boolean().values();
            mark(column.nulls(), changed, |row| values.value(row - 1) != values.value(row));
        }
        DataType::Dictionary(_, value) => {
            let dictionary = column.as_any_dictionary();
            let values = dictionary.values();
            if values.is_empty() || values.null_count() > 0 || value.is_floating() || value.is_nested() {
                return mark_changes(&cast(column, value)?, changed);
            }
            // Most rows repeat the index of the row before; only where it differs can the values, which need not be
            // distinct in a dictionary, decide.
            let mut moved = vec![false; changed.len()];
            mark_by_bits(&dictionary.keys().slice(0, column.len()), &mut moved);
            if marked(&moved).next().is_none() {
                return Ok(());
            }
            let compare = make_comparator(values, values, SortOptions::default())?;
            let nulls = column.nulls();
            let mut settle = |index: &dyn Fn(usize) -> usize| {
                for row in marked(&moved) {
                    let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
                    changed[row] |= match (valid(row - 1), valid(row)) {
                        (true, true) => compare(index(row - 1), index(row)).is_ne(),
                        (before, this) => before != this,
                    };
                }
            };
            // As the decoder makes them; of others all indices are widened first.
            match dictionary.keys().as_primitive_opt::<Int32Type>() {
                Some(indices) => settle(&|row| indices.value(row) as usize),
                None => {
                    let indices = dictionary.normalized_keys();
                    settle(&|row| indices[row]);
                }
            }
        }
        other if other.primitive_width().is_some() => mark_by_bits(column, changed),
        _ => {
            let compare = make_comparator(column, column, SortOptions::default())?;
            for (row, changed) in changed.iter_mut().enumerate().skip(1) {
                *changed |= compare(row - 1, row).is_ne();
            }
        }
    }
    Ok(())
}

/// Up to so many bytes stand in the view itself.
const INLINE: u32 = 12;

fn bytes_differ<O: ArrowNativeType>(offsets: &[O], bytes: &[u8], row: usize) -> bool {
    let (start, middle, end) = (offsets[row - 1].as_usize(), offsets[row].as_usize(), offsets[row + 1].as_usize());
    middle - start != end - middle || bytes[start..middle] != bytes[middle..end]
}

fn mark(nulls: Option<&NullBuffer>, changed: &mut [bool], differ: impl Fn(usize) -> bool) {
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (row, changed) in changed.iter_mut().enumerate().skip(1) {
                *changed |= differ(row);
            }
        }
        Some(nulls) => {
            for (row, changed) in changed.iter_mut().enumerate().skip(1) {
                *changed |= match (nulls.is_valid(row - 1), nulls.is_valid(row)) {
                    (true, true) => differ(row),
                    (before, this) => before != this,
                };
            }
        }
    }
}

/// For arrays of one buffer of values of fixed width.
fn mark_by_bits(column: &dyn Array, changed: &mut [bool]) {
    fn compare<T: ArrowNativeType>(column: &dyn Array, changed: &mut [bool]) {
        let data = column.to_data();
        let values = &data.buffer::<T>(0)[..column.len()];
        if column.null_count() > 0 {
            return mark(column.nulls(), changed, |row| values[row - 1] != values[row]);
        }
        for (changed, pair) in changed[1..].iter_mut().zip(values.windows(2)) {
            *changed |= pair[0] != pair[1];
        }
    }
    match column.data_type().primitive_width() {
        Some(1) => compare::<u8>(column, changed),
        Some(2) => compare::<u16>(column, changed),
        Some(4) => compare::<u32>(column, changed),
        Some(8) => compare::<u64>(column, changed),
        Some(16) => compare::<i128>(column, changed),
        _ => compare::<i256>(column, changed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{OutputKind, Source, Values, Writer};
    use super::*;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int32Array,
        Int64Array, LargeStringArray, StringArray, StringViewArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Int8Type;

    const LONG: &str = "a text longer than a view holds";

    /// One column of every type that can be a key; the rows are a a b null null b.
    fn key_columns() -> Vec<(&'static str, ArrayRef)> {
        let texts = [Some("a"), Some("a"), Some(LONG), None, None, Some(LONG)];
        let numbers = [Some(1i64), Some(1), Some(2), None, None, Some(2)];
        let integers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        let to = |data_type: &DataType| cast(&integers, data_type).expect("a cast");
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let floats = [Some(0.0), Some(-0.0), Some(f64::NAN), None, None, Some(other_nan)];
        let dictionary = DictionaryArray::<Int8Type>::new(
            vec![Some(0), Some(1), Some(2), None, None, Some(3)].into(),
            Arc::new(StringArray::from(vec!["a", "a", LONG, LONG])),
        );
        let moments = TimestampMillisecondArray::from(numbers.to_vec()).with_timezone("UTC");
        let truths = [Some(true), Some(true), Some(false), None, None, Some(false)];
        let decimals = Decimal128Array::from(numbers.map(|n| n.map(i128::from)).to_vec());
        vec![
            ("utf8", Arc::new(StringArray::from(texts.to_vec()))),
            ("large", Arc::new(LargeStringArray::from(texts.to_vec()))),
            ("view", Arc::new(StringViewArray::from(texts.to_vec()))),
            ("dictionary", Arc::new(dictionary)),
            (
                "numbers",
                cast(&integers, &DataType::Dictionary(DataType::Int8.into(), DataType::Int64.into())).expect(""),
            ),
            ("i8", to(&DataType::Int8)),
            ("i16", to(&DataType::Int16)),
            ("i32", to(&DataType::Int32)),
            ("i64", integers.clone()),
            ("u8", to(&DataType::UInt8)),
            ("u64", to(&DataType::UInt64)),
            ("f64", Arc::new(Float64Array::from(floats.to_vec()))),
            ("f32", Arc::new(Float32Array::from(floats.map(|f| f.map(|f| f as f32)).to_vec()))),
            ("f16", to(&DataType::Float16)),
            ("truth", Arc::new(BooleanArray::from(truths.to_vec()))),
            ("date", Arc::new(Date32Array::from(numbers.map(|n| n.map(|n| n as i32)).to_vec()))),
            ("moment", Arc::new(moments)),
            ("decimal", Arc::new(decimals.with_precision_and_scale(20, 2).expect("a decimal type"))),
            ("none", arrow::array::new_null_array(&DataType::Null, 6)),
        ]
    }

    #[test]
    fn keys_change_where_values_do_and_null_is_a_key_of_its_own() {
        for (name, column) in key_columns() {
            let expected: &[u32] = if name == "none" { &[0] } else { &[0, 2, 3, 5] };
            assert_eq!(starts(std::slice::from_ref(&column), 6).expect("starts"), expected, "{name}");
            let sliced = column.slice(1, 5);
            let expected: &[u32] = if name == "none" { &[0] } else { &[0, 1, 2, 4] };
            assert_eq!(starts(&[sliced], 5).expect("starts"), expected, "{name}, sliced");
        }
        assert!(starts(&[], 0).expect("starts").is_empty());
        assert_eq!(starts(&[], 3).expect("starts"), [0]);
    }

    #[test]
    fn keys_of_every_type_come_back_in_their_type_from_every_format() {
        let folder = tempfile::tempdir().expect("a folder");
        let (parquet, arrow) = (folder.path().join("t.parquet"), folder.path().join("t.arrow"));
        let columns = key_columns();
        let all = table(columns.clone());
        write_parquet(&parquet, &all);
        write_arrow_file(&arrow, &all);
        for path in [&parquet, &arrow] {
            for (name, column) in &columns {
                // Half floats as numbers keep the reader from having nothing to read.
                let (batches, restarted) = read_all(&[path], &selection(&[name], &["i64"], ""), 2).expect(name);
                // The value b comes again after null.
                assert_eq!(restarted, *name != "none", "{name}");
                let keys = &batches[0].keys;
                assert_eq!(keys.len(), if *name == "none" { 1 } else { 3 }, "{name}");
                let expected = match column.data_type() {
                    DataType::Dictionary(_, value) if **value == DataType::Utf8 => {
                        DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into())
                    }
                    DataType::Dictionary(_, value) => (**value).clone(),
                    other => other.clone(),
                };
                assert_eq!(keys.columns()[0].data_type(), &expected, "{name} from {}", path.display());
                assert!(
                    keys.columns()[0].is_null(keys.len() - 1) || *name == "none" || keys.describe(2).ends_with("null")
                );
            }
        }
    }

    #[test]
    fn keys_of_every_type_survive_being_written_to_every_format() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let columns = key_columns();
        write_parquet(&path, &table(columns.clone()).slice(0, 4));
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let (batches, _) = read_all(&[&path], &selection(&names, &["i64"], ""), 1).expect("curves");
        let keys = &batches[0].keys;
        let result = [("law".to_string(), OutputKind::Text)];
        let values = [Values::Text(vec!["power".into(); 2 * keys.len()])];
        for name in ["o.parquet", "o.arrow", "o.csv"] {
            let out = folder.path().join(name);
            let mut writer = Writer::create(&out.display().to_string(), keys.schema(), &result).expect("a writer");
            writer.write(keys, 2, &values).expect("rows");
            writer.write(keys, 2, &values).expect("rows");
            writer.finish(&[]).expect("a table");
            let source = Source::open(&[out.display().to_string()]).expect("a table");
            if name.ends_with("csv") {
                continue;
            }
            for (column, data_type) in source.columns().iter().zip(keys.schema().types()) {
                let written = match data_type {
                    DataType::Dictionary(_, value) if name.ends_with("arrow") => value.to_string(),
                    other => other.to_string(),
                };
                assert_eq!(column.type_name, written, "{} in {name}", column.name);
            }
            let (again, restarted) = read_all(&[&out], &selection(&names, &["i64"], ""), 1).expect("curves");
            assert!(restarted);
            assert_eq!(again[0].keys.describe(1), keys.describe(1));
        }
    }

    #[test]
    fn a_list_is_no_key_and_the_message_says_what_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let list =
            arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(vec![Some(vec![Some(
                1,
            )])]);
        write_parquet(&path, &table(vec![("l", Arc::new(list)), ("x", Arc::new(Int32Array::from(vec![1])))]));
        let error = read_all(&[&path], &selection(&["l"], &["x"], ""), 1).expect_err("a list").to_string();
        assert!(error.contains("column \"l\" is List") && error.contains("--by"), "{error}");
    }
}
