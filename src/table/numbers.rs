//! Columns to f64: every integer and float type and decimals, scalar or in lists; null becomes NaN.
//!
//! Knows Arrow types and what counts as a number; knows no files, no keys and no curves.

use super::keys::hash;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use std::ops::Range;

/// Whether values of this type are numbers. The type of a column that holds nothing but nulls counts as one.
pub(super) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_number(value),
        DataType::Null => true,
        other => other.is_numeric(),
    }
}

/// Whether values of this type are lists of numbers.
pub(super) fn is_list_of_numbers(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_number(item.data_type())
        }
        _ => false,
    }
}

/// One f64 per row, NaN for null.
pub(super) fn to_f64(array: &ArrayRef) -> Result<ScalarBuffer<f64>, ArrowError> {
    let floats = match array.data_type() {
        DataType::Float64 => array.clone(),
        // `cast` knows no way from an encoded null column, and none is needed.
        _ if array.null_count() == array.len() => return Ok(vec![f64::NAN; array.len()].into()),
        _ => cast(array, &DataType::Float64)?,
    };
    let floats = floats.as_primitive::<Float64Type>();
    let Some(nulls) = floats.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(floats.values().clone());
    };
    let values: Vec<f64> =
        floats.values().iter().zip(nulls).map(|(value, valid)| if valid { *value } else { f64::NAN }).collect();
    Ok(values.into())
}

/// One f64 per row that tells values apart and means nothing else: numbers stand for themselves, anything else for a hash of
/// its text; null is a value of its own.
pub(super) fn to_labels(array: &ArrayRef) -> Result<ScalarBuffer<f64>, ArrowError> {
    if is_number(array.data_type()) {
        return to_f64(array);
    }
    let texts = cast(array, &DataType::Utf8)?;
    // 53 bits: even a million labels of one curve hardly ever share one.
    let label = |text: Option<&str>| text.map_or(f64::NAN, |text| (hash(text.as_bytes()) >> 11) as f64);
    let labels: Vec<f64> = texts.as_string::<i32>().iter().map(label).collect();
    Ok(labels.into())
}

/// The numbers of all lists of a column, and for every row where its own lie (`None` for a null list).
pub(super) struct Lists {
    pub values: ScalarBuffer<f64>,
    pub rows: Vec<Option<Range<usize>>>,
}

/// Takes a column of lists apart.
pub(super) fn to_lists(array: &ArrayRef) -> Result<Lists, ArrowError> {
    let valid = |row: usize, range: Range<usize>| array.is_valid(row).then_some(range);
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let bounds = list.value_offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
            let rows = bounds.enumerate().map(|(row, range)| valid(row, range)).collect();
            Ok(Lists { values: to_f64(list.values())?, rows })
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let bounds = list.value_offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
            let rows = bounds.enumerate().map(|(row, range)| valid(row, range)).collect();
            Ok(Lists { values: to_f64(list.values())?, rows })
        }
        DataType::FixedSizeList(_, size) => {
            let list = array.as_fixed_size_list();
            let size = usize::try_from(*size).map_err(|_| ArrowError::SchemaError("negative list size".into()))?;
            let rows = (0..array.len()).map(|row| valid(row, row * size..(row + 1) * size)).collect();
            Ok(Lists { values: to_f64(list.values())?, rows })
        }
        other => Err(ArrowError::SchemaError(format!("{other} is no list of numbers"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float32Array, Int64Array, StringArray, UInt64Array};
    use std::sync::Arc;

    #[test]
    fn every_numeric_type_becomes_f64_and_null_becomes_nan() {
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(-3), None, Some(1 << 40)]));
        for to in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Float16, DataType::Float32] {
            let small = cast(&(Arc::new(Int64Array::from(vec![Some(-3), None])) as ArrayRef), &to).expect("a cast");
            let floats = to_f64(&small).expect("numbers");
            assert_eq!(floats[0], -3.0, "{to}");
            assert!(floats[1].is_nan(), "{to}");
        }
        assert_eq!(to_f64(&integers).expect("numbers")[2], (1u64 << 40) as f64);
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert_eq!(to_f64(&unsigned).expect("numbers")[0], u64::MAX as f64);
        let single: ArrayRef = Arc::new(Float32Array::from(vec![0.1f32]));
        assert_eq!(to_f64(&single).expect("numbers")[0], f64::from(0.1f32));
    }

    #[test]
    fn labels_tell_values_of_any_type_apart() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("a"), None]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, true, false]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let encoded = cast(&texts, &dictionary).expect("a cast");
        let equal = |array: &ArrayRef, i: usize, j: usize| {
            let labels = to_labels(array).expect("labels");
            labels[i].to_bits() == labels[j].to_bits()
        };
        for array in [&texts, &encoded] {
            assert!(equal(array, 0, 3) && equal(array, 2, 4) && !equal(array, 0, 1) && !equal(array, 0, 2));
            assert_eq!(to_labels(array).expect("labels")[0], to_labels(&texts).expect("labels")[0]);
        }
        assert!(equal(&flags, 0, 2) && equal(&flags, 1, 4) && !equal(&flags, 0, 1));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        assert_eq!(to_labels(&numbers).expect("labels").as_ref(), [7.0, 8.0]);
    }

    #[test]
    fn decimals_become_the_nearest_f64() {
        let texts = ["0.1", "123456789.123456789", "-7.3", "99999999999999999999.9"];
        let unscaled =
            [100_000_000i128, 123_456_789_123_456_789, -7_300_000_000, 99_999_999_999_999_999_999_900_000_000];
        let array = Decimal128Array::from(unscaled.to_vec()).with_precision_and_scale(38, 9).expect("a decimal type");
        let floats = to_f64(&(Arc::new(array) as ArrayRef)).expect("numbers");
        for (text, float) in texts.iter().zip(floats.iter()) {
            assert_eq!(text.parse::<f64>().expect("a number"), *float, "{text}");
        }
    }
}
