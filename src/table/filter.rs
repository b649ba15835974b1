//! `--where`: which rows to keep, by an expression of columns.
//!
//! In: the filter's text and tree, the types of the columns, then columns. Out: a type error with a caret, or one truth
//! value per row. Null is unknown, as in SQL, and so is NaN: a comparison with either is neither true nor false, and a
//! row is kept only where the filter is true. Integer columns are compared with integers exactly; everything else that
//! is a number is computed in f64.

use super::numbers::to_f64;
use super::source::{ColumnKind, kind_of};
use crate::error::{Error, Result, nearest};
use crate::formula::parse::{Arithmetic, Comparison, Expression, Function, Kind, point_at};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, Int64Array, Scalar, StringArray, UInt64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::kernels::cmp;
use arrow::compute::{CastOptions, and_kleene, cast, cast_with_options, not, or_kleene};
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use std::ops::Range;
use std::sync::Arc;

/// A filter whose types were checked.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    text: String,
    tree: Expression,
}

/// The type of a part of a filter.
#[derive(Debug, Clone, PartialEq)]
enum Type {
    Number,
    Text,
    Truth,
    Time(DataType),
}

impl Type {
    fn describe(&self) -> String {
        match self {
            Type::Number => "a number".to_string(),
            Type::Text => "text".to_string(),
            Type::Truth => "a truth value".to_string(),
            Type::Time(data_type) => format!("a time ({data_type})"),
        }
    }
}

impl Filter {
    pub(super) fn new(text: &str, tree: &Expression) -> Filter {
        Filter { text: text.to_string(), tree: tree.clone() }
    }

    /// The columns that the filter uses, each once.
    pub(super) fn columns(&self) -> Vec<String> {
        let mut names = Vec::new();
        visit_names(&self.tree, &mut |name| {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_string());
            }
        });
        names
    }

    /// Checks names and types.
    ///
    /// # Errors
    /// [`Error::Formula`] with a caret under the part that is wrong.
    pub(super) fn check(&self, names: &[&str], data_type: &dyn Fn(&str) -> Option<DataType>) -> Result<()> {
        let check = Check { text: &self.text, names, data_type };
        match check.type_of(&self.tree)? {
            Type::Truth => Ok(()),
            other => Err(check.error(
                &self.tree.span,
                &format!(
                    "--where must say whether to keep a row, and this is {}; compare it with something",
                    other.describe()
                ),
            )),
        }
    }

    /// One truth value per row; null where unknown.
    pub(super) fn keep(
        &self,
        rows: usize,
        column: &dyn Fn(&str) -> ArrayRef,
    ) -> std::result::Result<BooleanArray, ArrowError> {
        let evaluation = Evaluation { text: &self.text, rows, column };
        evaluation.value(&self.tree)?.into_truth(rows)
    }
}

/// `a + b + c + …` nests to the left, as deep as it is long; it is walked from its first part on, without recursion.
/// Out: the first part, and the operations on it from the last to the first.
fn spine(tree: &Expression) -> (&Expression, Vec<&Expression>) {
    let mut operations = Vec::new();
    let mut first = tree;
    while let Kind::Arithmetic(_, left, _) | Kind::And(left, _) | Kind::Or(left, _) = &first.kind {
        operations.push(first);
        first = left;
    }
    (first, operations)
}

fn visit_names(tree: &Expression, visit: &mut dyn FnMut(&str)) {
    let (first, operations) = spine(tree);
    match &first.kind {
        Kind::Name(name) => visit(name),
        Kind::Negate(inner) | Kind::Not(inner) => visit_names(inner, visit),
        Kind::Comparison(_, a, b) => {
            visit_names(a, visit);
            visit_names(b, visit);
        }
        Kind::Call(_, arguments) => arguments.iter().for_each(|argument| visit_names(argument, visit)),
        _ => {}
    }
    for operation in operations.iter().rev() {
        if let Kind::Arithmetic(_, _, right) | Kind::And(_, right) | Kind::Or(_, right) = &operation.kind {
            visit_names(right, visit);
        }
    }
}

struct Check<'a> {
    text: &'a str,
    names: &'a [&'a str],
    data_type: &'a dyn Fn(&str) -> Option<DataType>,
}

impl Check<'_> {
    fn error(&self, span: &Range<usize>, message: &str) -> Error {
        point_at(self.text, span, message)
    }

    fn type_of(&self, tree: &Expression) -> Result<Type> {
        let (first, operations) = spine(tree);
        let mut left = self.type_of_part(first)?;
        for operation in operations.iter().rev() {
            left = match &operation.kind {
                Kind::Arithmetic(operator, a, b) => {
                    let wants = format!("`{}` takes", arithmetic_sign(*operator));
                    self.number(left, a, &wants)?;
                    self.number(self.type_of(b)?, b, &wants)?
                }
                Kind::And(a, b) => self.truth(left, a, "and").and_then(|_| self.truth(self.type_of(b)?, b, "and"))?,
                Kind::Or(a, b) => self.truth(left, a, "or").and_then(|_| self.truth(self.type_of(b)?, b, "or"))?,
                _ => self.type_of_part(operation)?,
            };
        }
        Ok(left)
    }

    fn type_of_part(&self, tree: &Expression) -> Result<Type> {
        match &tree.kind {
            Kind::Number(_) => Ok(Type::Number),
            Kind::Text(_) => Ok(Type::Text),
            Kind::Truth(_) => Ok(Type::Truth),
            Kind::Name(name) => self.type_of_column(name, &tree.span),
            Kind::Negate(inner) => self.number(self.type_of(inner)?, inner, "`-` takes"),
            Kind::Not(inner) => self.truth(self.type_of(inner)?, inner, "not"),
            Kind::Call(function, arguments) => {
                for argument in arguments {
                    self.number(self.type_of(argument)?, argument, &format!("`{}` takes", function.name()))?;
                }
                Ok(Type::Number)
            }
            Kind::Comparison(comparison, a, b) => self.comparison(*comparison, a, b),
            Kind::Arithmetic(..) | Kind::And(..) | Kind::Or(..) => self.type_of(tree),
        }
    }

    fn type_of_column(&self, name: &str, span: &Range<usize>) -> Result<Type> {
        let Some(data_type) = (self.data_type)(name) else {
            let hint = match nearest(name, self.names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("text is written in quotes: '{name}'"),
            };
            let message = format!("no column is named \"{name}\"; {hint} (columns: {})", self.names.join(", "));
            return Err(self.error(span, &message));
        };
        match kind_of(&data_type) {
            ColumnKind::Number => Ok(Type::Number),
            ColumnKind::Text => Ok(Type::Text),
            ColumnKind::Truth => Ok(Type::Truth),
            ColumnKind::Time => Ok(Type::Time(data_type)),
            ColumnKind::ListOfNumbers | ColumnKind::Other => Err(self.error(
                span,
                &format!("column \"{name}\" is {data_type}; --where takes numbers, text, truth values and times"),
            )),
        }
    }

    fn number(&self, found: Type, tree: &Expression, wants: &str) -> Result<Type> {
        match found {
            Type::Number => Ok(Type::Number),
            other => Err(self.error(&tree.span, &format!("{wants} numbers, and this is {}", other.describe()))),
        }
    }

    fn truth(&self, found: Type, tree: &Expression, word: &str) -> Result<Type> {
        match found {
            Type::Truth => Ok(Type::Truth),
            other => Err(self.error(
                &tree.span,
                &format!("`{word}` joins truth values, and this is {}; compare it with something", other.describe()),
            )),
        }
    }

    fn comparison(&self, comparison: Comparison, a: &Expression, b: &Expression) -> Result<Type> {
        let (left, right) = (self.type_of(a)?, self.type_of(b)?);
        match (&left, &right) {
            (Type::Number, Type::Number) | (Type::Text, Type::Text) => Ok(Type::Truth),
            (Type::Truth, Type::Truth) if matches!(comparison, Comparison::Equal | Comparison::NotEqual) => {
                Ok(Type::Truth)
            }
            (Type::Truth, Type::Truth) => Err(self.error(&b.span, "truth values are compared with `==` and `!=` only")),
            (Type::Time(one), Type::Time(other)) if one == other => Ok(Type::Truth),
            (Type::Time(data_type), Type::Text) => self.moment(b, data_type),
            (Type::Text, Type::Time(data_type)) => self.moment(a, data_type),
            _ => {
                let repair = match (&a.kind, &b.kind) {
                    (Kind::Number(_), _) => format!("write '{}' for text", &self.text[a.span.clone()]),
                    (_, Kind::Number(_)) => format!("write '{}' for text", &self.text[b.span.clone()]),
                    (Kind::Text(_), _) | (_, Kind::Text(_)) => "write a number without quotes".to_string(),
                    _ => "both sides must be of one type".to_string(),
                };
                let message = format!("{} is compared with {}; {repair}", left.describe(), right.describe());
                Err(self.error(&b.span, &message))
            }
        }
    }

    /// A text beside a time must be a literal that reads as such a time.
    fn moment(&self, tree: &Expression, data_type: &DataType) -> Result<Type> {
        let Kind::Text(text) = &tree.kind else {
            return Err(self.error(&tree.span, &format!("a column of text is compared with a time ({data_type})")));
        };
        match as_moment(text, data_type) {
            Ok(_) => Ok(Type::Truth),
            Err(_) => Err(self.error(
                &tree.span,
                &format!("'{text}' does not read as {data_type}; write it like '2024-01-31' or '2024-01-31T12:00:00'"),
            )),
        }
    }
}

fn arithmetic_sign(operator: Arithmetic) -> &'static str {
    match operator {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
        Arithmetic::Power => "^",
    }
}

fn as_moment(text: &str, data_type: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
    cast_with_options(&text, data_type, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Numbers in f64: one for all rows, or one per row; NaN is unknown.
enum Numbers {
    One(f64),
    Many(ScalarBuffer<f64>),
}

/// Integers, exact.
enum Integers {
    One(i128),
    Signed(Int64Array),
    Unsigned(UInt64Array),
}

/// Text, or anything else that Arrow compares by itself: a column, or one value for all rows.
struct Other {
    array: ArrayRef,
    one: bool,
}

enum Value {
    Numbers(Numbers),
    Integers(Integers),
    Text(Other),
    Time(Other),
    Truth(BooleanArray),
    /// A truth value that is the same in all rows.
    Constant(bool),
}

impl Value {
    fn into_truth(self, rows: usize) -> std::result::Result<BooleanArray, ArrowError> {
        match self {
            Value::Truth(truth) => Ok(truth),
            Value::Constant(truth) => Ok(BooleanArray::from(vec![truth; rows])),
            _ => Err(mistyped()),
        }
    }

    fn into_numbers(self) -> std::result::Result<Numbers, ArrowError> {
        match self {
            Value::Numbers(numbers) => Ok(numbers),
            Value::Integers(Integers::One(integer)) => Ok(Numbers::One(integer as f64)),
            Value::Integers(Integers::Signed(array)) => Ok(Numbers::Many(to_f64(&(Arc::new(array) as ArrayRef))?)),
            Value::Integers(Integers::Unsigned(array)) => Ok(Numbers::Many(to_f64(&(Arc::new(array) as ArrayRef))?)),
            _ => Err(mistyped()),
        }
    }
}

/// `check` refuses what would lead here.
fn mistyped() -> ArrowError {
    ArrowError::InvalidArgumentError("the filter was used on columns of other types than it was checked for".into())
}

struct Evaluation<'a> {
    text: &'a str,
    rows: usize,
    column: &'a dyn Fn(&str) -> ArrayRef,
}

impl Evaluation<'_> {
    fn value(&self, tree: &Expression) -> std::result::Result<Value, ArrowError> {
        let (first, operations) = spine(tree);
        let mut left = self.value_of_part(first)?;
        for operation in operations.iter().rev() {
            left = match &operation.kind {
                Kind::And(_, b) => {
                    let right = self.value(b)?.into_truth(self.rows)?;
                    Value::Truth(and_kleene(&left.into_truth(self.rows)?, &right)?)
                }
                Kind::Or(_, b) => {
                    let right = self.value(b)?.into_truth(self.rows)?;
                    Value::Truth(or_kleene(&left.into_truth(self.rows)?, &right)?)
                }
                Kind::Arithmetic(operator, _, b) => {
                    let (a, b) = (left.into_numbers()?, self.value(b)?.into_numbers()?);
                    Value::Numbers(match operator {
                        Arithmetic::Add => join(a, b, |a, b| a + b),
                        Arithmetic::Subtract => join(a, b, |a, b| a - b),
                        Arithmetic::Multiply => join(a, b, |a, b| a * b),
                        Arithmetic::Divide => join(a, b, |a, b| a / b),
                        Arithmetic::Power => join(a, b, power),
                    })
                }
                _ => return Err(mistyped()),
            };
        }
        Ok(left)
    }

    fn value_of_part(&self, tree: &Expression) -> std::result::Result<Value, ArrowError> {
        Ok(match &tree.kind {
            Kind::Number(number) => {
                // A part's text holds the parentheses around it.
                let around = |c: char| c.is_whitespace() || matches!(c, '(' | ')');
                match integer_of(self.text[tree.span.clone()].trim_matches(around), *number) {
                    Some(integer) => Value::Integers(Integers::One(integer)),
                    None => Value::Numbers(Numbers::One(*number)),
                }
            }
            Kind::Text(text) => {
                Value::Text(Other { array: Arc::new(StringArray::from(vec![text.as_str()])), one: true })
            }
            Kind::Truth(truth) => Value::Constant(*truth),
            Kind::Name(name) => column_value((self.column)(name))?,
            Kind::Negate(inner) => match self.value(inner)? {
                Value::Integers(Integers::One(integer)) => Value::Integers(Integers::One(-integer)),
                other => Value::Numbers(map(other.into_numbers()?, |a| -a)),
            },
            Kind::Not(inner) => match self.value(inner)? {
                Value::Constant(truth) => Value::Constant(!truth),
                other => Value::Truth(not(&other.into_truth(self.rows)?)?),
            },
            Kind::Call(function, arguments) => {
                let mut arguments = arguments.iter().map(|argument| self.value(argument)?.into_numbers());
                let mut next = || arguments.next().unwrap_or_else(|| Err(mistyped()));
                let first = next()?;
                Value::Numbers(match one_argument(*function) {
                    Some(function) => map(first, function),
                    None => join(first, next()?, two_arguments(*function)),
                })
            }
            Kind::Comparison(comparison, a, b) => self.compare(*comparison, self.value(a)?, self.value(b)?)?,
            Kind::Arithmetic(..) | Kind::And(..) | Kind::Or(..) => self.value(tree)?,
        })
    }

    fn compare(&self, comparison: Comparison, a: Value, b: Value) -> std::result::Result<Value, ArrowError> {
        Ok(match (a, b) {
            (Value::Integers(a), Value::Integers(b)) => compare_integers(comparison, a, b, self.rows)?,
            (Value::Text(a), Value::Text(b)) => compare_texts(comparison, a, b)?,
            (Value::Time(a), Value::Text(b)) => {
                let b = Other { array: cast(&b.array, a.array.data_type())?, one: true };
                compare_others(comparison, &a, &b)?
            }
            (Value::Text(a), Value::Time(b)) => {
                let a = Other { array: cast(&a.array, b.array.data_type())?, one: true };
                compare_others(comparison, &a, &b)?
            }
            (Value::Time(a), Value::Time(b)) => compare_others(comparison, &a, &b)?,
            (a @ (Value::Truth(_) | Value::Constant(_)), b) => {
                let (a, b) = (a.into_truth(self.rows)?, b.into_truth(self.rows)?);
                Value::Truth(kernel(comparison, &a, &b)?)
            }
            (a, b) => compare_numbers(comparison, a.into_numbers()?, b.into_numbers()?, self.rows),
        })
    }
}

fn column_value(array: ArrayRef) -> std::result::Result<Value, ArrowError> {
    let array = match array.data_type() {
        DataType::Dictionary(_, value) if kind_of(value) != ColumnKind::Text => cast(&array, value)?,
        _ => array,
    };
    Ok(match kind_of(array.data_type()) {
        ColumnKind::Text => Value::Text(Other { array, one: false }),
        ColumnKind::Time => Value::Time(Other { array, one: false }),
        ColumnKind::Truth => Value::Truth(array.as_boolean().clone()),
        ColumnKind::Number => match array.data_type() {
            DataType::UInt64 => Value::Integers(Integers::Unsigned(array.as_primitive::<UInt64Type>().clone())),
            other if other.is_integer() => {
                let array = cast(&array, &DataType::Int64)?;
                Value::Integers(Integers::Signed(array.as_primitive::<Int64Type>().clone()))
            }
            _ => Value::Numbers(Numbers::Many(to_f64(&array)?)),
        },
        ColumnKind::ListOfNumbers | ColumnKind::Other => return Err(mistyped()),
    })
}

/// The exact integer that a literal means, where it means one: `9007199254740993` has no f64, `1e18` has.
fn integer_of(text: &str, number: f64) -> Option<i128> {
    /// Beyond this no column of 64 bits is left to compare with.
    const LARGEST: f64 = 1e30;
    if let Ok(integer) = text.parse::<i128>()
        && number.abs() < LARGEST
    {
        return Some(integer);
    }
    (number.fract() == 0.0 && number.abs() < LARGEST).then_some(number as i128)
}

fn map(a: Numbers, function: impl Fn(f64) -> f64) -> Numbers {
    match a {
        Numbers::One(a) => Numbers::One(function(a)),
        Numbers::Many(a) => Numbers::Many(a.iter().map(|&a| function(a)).collect()),
    }
}

fn join(a: Numbers, b: Numbers, function: impl Fn(f64, f64) -> f64) -> Numbers {
    match (a, b) {
        (Numbers::One(a), Numbers::One(b)) => Numbers::One(function(a, b)),
        (Numbers::Many(a), Numbers::One(b)) => Numbers::Many(a.iter().map(|&a| function(a, b)).collect()),
        (Numbers::One(a), Numbers::Many(b)) => Numbers::Many(b.iter().map(|&b| function(a, b)).collect()),
        (Numbers::Many(a), Numbers::Many(b)) => {
            Numbers::Many(a.iter().zip(b.iter()).map(|(&a, &b)| function(a, b)).collect())
        }
    }
}

/// `x^y` with unknown staying unknown: IEEE has NaN^0 = 1^NaN = 1.
fn power(base: f64, exponent: f64) -> f64 {
    if base.is_nan() || exponent.is_nan() { f64::NAN } else { base.powf(exponent) }
}

fn one_argument(function: Function) -> Option<fn(f64) -> f64> {
    Some(match function {
        Function::Exp => f64::exp,
        Function::Log => f64::ln,
        Function::Log2 => f64::log2,
        Function::Log10 => f64::log10,
        Function::Log1p => f64::ln_1p,
        Function::Expm1 => f64::exp_m1,
        Function::Sqrt => f64::sqrt,
        Function::Abs => f64::abs,
        Function::Sin => f64::sin,
        Function::Cos => f64::cos,
        Function::Tan => f64::tan,
        Function::Atan => f64::atan,
        Function::Tanh => f64::tanh,
        // log(1 + exp(z)) without overflow; `+` (not `max`) keeps NaN.
        Function::Softplus => |z| 0.5 * (z + z.abs()) + (-z.abs()).exp().ln_1p(),
        Function::Sigmoid => |z| 1.0 / (1.0 + (-z).exp()),
        Function::Min | Function::Max => return None,
    })
}

/// `min` and `max` with unknown staying unknown; [`one_argument`] knows all other functions.
fn two_arguments(function: Function) -> fn(f64, f64) -> f64 {
    match function {
        Function::Min => |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) },
        _ => |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) },
    }
}

fn holds<T: PartialOrd>(comparison: Comparison, a: &T, b: &T) -> bool {
    match comparison {
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b,
        Comparison::Less => a < b,
        Comparison::LessOrEqual => a <= b,
        Comparison::Greater => a > b,
        Comparison::GreaterOrEqual => a >= b,
    }
}

/// Arrow's comparison, for types on which its order is the usual one (so not for floats).
fn kernel(comparison: Comparison, a: &dyn Datum, b: &dyn Datum) -> std::result::Result<BooleanArray, ArrowError> {
    match comparison {
        Comparison::Equal => cmp::eq(a, b),
        Comparison::NotEqual => cmp::neq(a, b),
        Comparison::Less => cmp::lt(a, b),
        Comparison::LessOrEqual => cmp::lt_eq(a, b),
        Comparison::Greater => cmp::gt(a, b),
        Comparison::GreaterOrEqual => cmp::gt_eq(a, b),
    }
}

fn compare_numbers(comparison: Comparison, a: Numbers, b: Numbers, rows: usize) -> Value {
    fn truth(rows: usize, known: impl Fn(usize) -> bool, holds: impl Fn(usize) -> bool) -> Value {
        let known = NullBuffer::new(BooleanBuffer::collect_bool(rows, known));
        Value::Truth(BooleanArray::new(BooleanBuffer::collect_bool(rows, holds), Some(known)))
    }
    match (a, b) {
        (Numbers::One(a), Numbers::One(b)) => {
            truth(rows, |_| !(a.is_nan() || b.is_nan()), |_| holds(comparison, &a, &b))
        }
        (Numbers::Many(a), Numbers::One(b)) => {
            truth(rows, |row| !(a[row].is_nan() || b.is_nan()), |row| holds(comparison, &a[row], &b))
        }
        (Numbers::One(a), Numbers::Many(b)) => {
            truth(rows, |row| !(a.is_nan() || b[row].is_nan()), |row| holds(comparison, &a, &b[row]))
        }
        (Numbers::Many(a), Numbers::Many(b)) => {
            truth(rows, |row| !(a[row].is_nan() || b[row].is_nan()), |row| holds(comparison, &a[row], &b[row]))
        }
    }
}

fn compare_integers(
    comparison: Comparison,
    a: Integers,
    b: Integers,
    rows: usize,
) -> std::result::Result<Value, ArrowError> {
    Ok(match (a, b) {
        (Integers::One(a), Integers::One(b)) => Value::Constant(holds(comparison, &a, &b)),
        (Integers::Signed(a), Integers::Signed(b)) => Value::Truth(kernel(comparison, &a, &b)?),
        (Integers::Unsigned(a), Integers::Unsigned(b)) => Value::Truth(kernel(comparison, &a, &b)?),
        (Integers::Signed(a), Integers::One(b)) if i64::try_from(b).is_ok() => {
            Value::Truth(kernel(comparison, &a, &Int64Array::new_scalar(b as i64))?)
        }
        (Integers::One(a), Integers::Signed(b)) if i64::try_from(a).is_ok() => {
            Value::Truth(kernel(comparison, &Int64Array::new_scalar(a as i64), &b)?)
        }
        // Different widths, or a literal that no value can equal: 128 bits hold them all.
        (a, b) => {
            let at = |side: &Integers, row: usize| match side {
                Integers::One(integer) => Some(*integer),
                Integers::Signed(array) => array.is_valid(row).then(|| i128::from(array.value(row))),
                Integers::Unsigned(array) => array.is_valid(row).then(|| i128::from(array.value(row))),
            };
            let truths = (0..rows).map(|row| Some(holds(comparison, &at(&a, row)?, &at(&b, row)?)));
            Value::Truth(truths.collect())
        }
    })
}

fn compare_texts(comparison: Comparison, a: Other, b: Other) -> std::result::Result<Value, ArrowError> {
    /// The type of the texts themselves.
    fn layout(data_type: &DataType) -> &DataType {
        match data_type {
            DataType::Dictionary(_, value) => value,
            other => other,
        }
    }
    if a.one && b.one {
        let text = |side: &Other| side.array.as_string::<i32>().value(0).to_string();
        return Ok(Value::Constant(holds(comparison, &text(&a), &text(&b))));
    }
    if a.one {
        let a = Other { array: cast(&a.array, layout(b.array.data_type()))?, one: true };
        return compare_others(comparison, &a, &b);
    }
    if b.one {
        let b = Other { array: cast(&b.array, layout(a.array.data_type()))?, one: true };
        return compare_others(comparison, &a, &b);
    }
    let plain =
        |side: &Other| Ok::<_, ArrowError>(Other { array: cast(&side.array, &DataType::LargeUtf8)?, one: false });
    compare_others(comparison, &plain(&a)?, &plain(&b)?)
}

fn compare_others(comparison: Comparison, a: &Other, b: &Other) -> std::result::Result<Value, ArrowError> {
    let datum = |side: &Other| -> Box<dyn Datum> {
        if side.one { Box::new(Scalar::new(side.array.clone())) } else { Box::new(side.array.clone()) }
    };
    Ok(Value::Truth(kernel(comparison, datum(a).as_ref(), datum(b).as_ref())?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;
    use crate::formula::parse::parse_filter;
    use arrow::array::{
        Date32Array, Float64Array, LargeStringArray, RecordBatch, StringViewArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Int32Type;

    const BIG: i64 = 9_007_199_254_740_993;

    fn example() -> RecordBatch {
        let split = vec![Some("val"), Some("train"), None, Some("val")];
        let dictionary: arrow::array::DictionaryArray<Int32Type> = split.iter().copied().collect();
        table(vec![
            ("step", Arc::new(Int64Array::from(vec![Some(BIG), Some(BIG - 1), None, Some(-5)])) as ArrayRef),
            ("seed", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1, 2]))),
            ("loss", Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(-0.0), None]))),
            ("split", Arc::new(StringArray::from(split.clone()))),
            ("large", Arc::new(LargeStringArray::from(split.clone()))),
            ("view", Arc::new(StringViewArray::from(split.clone()))),
            ("coded", Arc::new(dictionary)),
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
            ("day", Arc::new(Date32Array::from(vec![Some(19_723), Some(19_724), None, Some(0)]))),
            (
                "moment",
                Arc::new(
                    TimestampMillisecondArray::from(vec![Some(1_704_067_200_000), None, Some(0), Some(1)])
                        .with_timezone("Europe/Berlin"),
                ),
            ),
            (
                "list",
                Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                    Some(vec![Some(1)]),
                    None,
                    None,
                    None,
                ])),
            ),
        ])
    }

    fn kept(text: &str) -> Vec<usize> {
        let table = example();
        let filter = Filter::new(text, &parse_filter(text).expect(text));
        let names: Vec<&str> = table.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        filter
            .check(&names, &|name| table.column_by_name(name).map(|column| column.data_type().clone()))
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let column = |name: &str| table.column_by_name(name).expect("a column that was checked").clone();
        let keep = filter.keep(table.num_rows(), &column).expect(text);
        (0..keep.len()).filter(|&row| keep.is_valid(row) && keep.value(row)).collect()
    }

    #[test]
    fn filters_keep_the_rows_for_which_they_are_true() {
        for (text, expected) in [
            ("step > 0", &[0usize, 1][..]),
            ("step == 9007199254740993", &[0]),
            ("step == 9007199254740992", &[1]),
            ("( step ) == ( (9007199254740993) )", &[0]),
            ("9007199254740992 < step", &[0]),
            ("step != -5", &[0, 1]),
            ("step > 1e18", &[]),
            ("step < 99999999999999999999", &[0, 1, 3]),
            ("step >= 0.5", &[0, 1]),
            ("seed == 18446744073709551615", &[0]),
            ("seed > step", &[0, 3]),
            ("loss == 0", &[2]),
            ("loss == loss", &[0, 2]),
            ("not loss > 0", &[2]),
            ("loss > 0 or ok", &[0, 3]),
            ("not (loss > 0 and ok)", &[1, 2]),
            ("split == 'val'", &[0, 3]),
            ("'val' != large", &[1]),
            ("view == 'val' and ok", &[0, 3]),
            ("coded == \"val\"", &[0, 3]),
            ("coded == view", &[0, 1, 3]),
            ("split < 'u'", &[1]),
            ("ok == false", &[1]),
            ("ok", &[0, 3]),
            ("not ok", &[1]),
            ("true", &[0, 1, 2, 3]),
            ("1 > 2", &[]),
            ("'a' < 'b'", &[0, 1, 2, 3]),
            ("day >= '2024-01-01'", &[0, 1]),
            ("'2024-01-01' == day", &[0]),
            ("moment == '2024-01-01T01:00:00'", &[0]),
            ("moment < '2024-01-01T00:00:00Z'", &[2, 3]),
            ("max(loss, 2) == 2", &[0, 2]),
            ("exp(loss) > 2 and log10(seed + 1) > 15", &[0]),
            ("loss^0 == 1", &[0, 2]),
            ("-step == 5", &[3]),
            ("abs(step) == 5", &[3]),
        ] {
            assert_eq!(kept(text), expected, "{text}");
        }
    }

    #[test]
    fn type_errors_point_at_the_part_that_is_wrong() {
        let table = example();
        let names: Vec<&str> = table.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        for (text, message, caret) in [
            ("split == 5", "text is compared with a number; write '5' for text", 9),
            ("step == '5'", "a number is compared with text; write a number without quotes", 8),
            ("stepp > 5", "did you mean `step`?", 0),
            ("split == vla_x_y_z", "text is written in quotes: 'vla_x_y_z'", 9),
            ("step", "compare it with something", 0),
            ("step and ok", "`and` joins truth values, and this is a number", 0),
            ("log(split) > 1", "`log` takes numbers, and this is text", 4),
            ("step + ok > 1", "`+` takes numbers, and this is a truth value", 7),
            ("ok < true", "with `==` and `!=` only", 5),
            ("list > 1", "column \"list\" is List", 0),
            ("day > 'soon'", "'soon' does not read as Date32", 6),
        ] {
            let filter = Filter::new(text, &parse_filter(text).expect(text));
            let error = filter
                .check(&names, &|name| table.column_by_name(name).map(|column| column.data_type().clone()))
                .expect_err(text)
                .to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(error.ends_with(&format!("\n  {}^", " ".repeat(caret))), "{text}: {error}");
        }
    }

    #[test]
    fn the_longest_filter_that_parses_also_runs() {
        let text = vec!["ok"; 2_000].join(" or ");
        assert_eq!(kept(&text), [0, 3]);
        let text = format!("{} > 0", vec!["loss"; 2_000].join("+"));
        assert_eq!(kept(&text), [0]);
    }
}
