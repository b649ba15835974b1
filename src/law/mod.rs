//! A law: a formula bound to the columns of a table.
//!
//! In: a catalogue name or a typed formula, and the table's column names. Out: a [`Law`], whose graph speaks of numbered
//! columns and parameters. Catalogue laws and typed formulas are the same thing from here on.

pub mod catalogue;
pub mod role;

use crate::error::{Error, Result, nearest};
use crate::formula::graph::{Graph, Id, MOST_PARAMETERS, Unary};
use crate::formula::parse::{Arithmetic, Expression, Formula, Function, Kind, parse_formula, point_at};
use catalogue::Entry;

/// A formula bound to columns.
#[derive(Debug, Clone)]
pub struct Law {
    /// What the output's `law` column says: the catalogue's name, the name given by the user, or the text typed.
    pub name: String,
    /// The right side as text, in the catalogue's or the user's own names.
    pub formula: String,
    /// The raw columns used by both sides; `Input(k)` of the graph is `columns[k]`.
    pub columns: Vec<String>,
    /// Parameter names in order of appearance; `Parameter(j)` of the graph is `parameters[j]`.
    pub parameters: Vec<String>,
    pub graph: Graph,
    /// The right side.
    pub prediction: Id,
    /// The left side, free of parameters.
    pub response: Id,
    /// The left side as text.
    pub response_text: String,
    /// The catalogue entry, where the law is one.
    pub entry: Option<&'static Entry>,
    /// The columns of the entry's inputs, in its order; empty for a typed formula.
    pub mapped: Vec<String>,
}

/// How names of a catalogue law's inputs and of the response map to columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mapping<'a> {
    /// Columns for a catalogue law's inputs, in the catalogue's order.
    pub x: &'a [String],
    /// The response column.
    pub y: Option<&'a str>,
}

impl Law {
    /// Binds a law to a table with `columns`.
    ///
    /// # Errors
    /// [`Error::Formula`] and [`Error::Usage`] for what does not parse, uses no column or no parameter, has unknown
    /// functions, or lacks a response; [`Error::Column`] for `--x` and `--y` names that the table lacks.
    pub fn bind(text: &str, columns: &[String], mapping: Mapping) -> Result<Law> {
        let trimmed = text.trim();
        match catalogue::find(trimmed) {
            Some(entry) => Law::bind_entry(entry, columns, mapping),
            None => Law::bind_formula(trimmed, columns, mapping.y),
        }
    }

    /// The name under which a comparison of laws counts this one.
    pub fn family(&self) -> &str {
        match self.entry {
            Some(entry) => entry.family(),
            None => &self.name,
        }
    }

    /// The law of the family in whose parameters this one is searched, bound to the same columns, and this one's parameters
    /// as nodes of its graph; None where it is searched in its own parameters.
    pub fn representative(&self) -> Option<(Law, Vec<Id>)> {
        let entry = self.entry?;
        let (of, alias) = (entry.representative()?, entry.alias.as_ref()?);
        let mapping = Mapping { x: &self.mapped, y: Some(&self.response_text) };
        let mut law = Law::bind_entry(of, &self.columns, mapping).expect("the same columns bind another law of them");
        let own = alias.parameters.iter().map(|text| {
            let formula = parse_formula(text).expect("every formula of the catalogue parses: a test reads them all");
            let mut reader = Reader::new(text);
            reader.graph = std::mem::take(&mut law.graph);
            reader.parameters = law.parameters.clone();
            let id = reader.read(&formula.right).expect("and reads");
            law.graph = reader.graph;
            id
        });
        let own = own.collect();
        Some((law, own))
    }

    /// [`Law::representative`], where that is itself in the catalogue.
    pub fn in_family(&self) -> Option<(Law, Vec<Id>)> {
        let listed = |entry: &'static Entry| catalogue::find(entry.name).is_some();
        self.representative().filter(|(law, _)| law.entry.is_some_and(listed))
    }

    pub(crate) fn bind_entry(entry: &'static Entry, columns: &[String], mapping: Mapping) -> Result<Law> {
        if mapping.x.len() < entry.inputs.len() {
            return Err(Error::Usage(format!(
                "law {} needs {} input{} ({}), --x names {}: give --x {}",
                entry.name,
                entry.inputs.len(),
                if entry.inputs.len() == 1 { "" } else { "s" },
                entry.inputs.join(", "),
                mapping.x.len(),
                vec!["COL"; entry.inputs.len()].join(",")
            )));
        }
        let Some(y) = mapping.y else {
            return Err(Error::Usage(format!("law {} has no left side: name the response with --y COL", entry.name)));
        };
        for name in mapping.x[..entry.inputs.len()].iter().map(String::as_str).chain([y]) {
            require(name, columns)?;
        }
        let formula = parse_formula(entry.formula).expect("every catalogue formula parses: a test reads them all");
        let mut reader = Reader::new(entry.formula);
        for (input, column) in entry.inputs.iter().zip(mapping.x) {
            let k = reader.column(column);
            reader.inputs.push((input.to_string(), k));
        }
        // The table of the catalogue lists parameters in the order in which users expect to read them.
        for parameter in entry.parameters {
            reader.parameters.push(parameter.name.to_string());
        }
        let prediction = reader.read(&formula.right)?;
        let k = reader.column(y);
        let response = reader.graph.input(k);
        Ok(Law {
            name: entry.name.to_string(),
            formula: entry.formula.to_string(),
            columns: reader.columns,
            parameters: reader.parameters,
            graph: reader.graph,
            prediction,
            response,
            response_text: y.to_string(),
            entry: Some(entry),
            mapped: mapping.x[..entry.inputs.len()].to_vec(),
        })
    }

    fn bind_formula(text: &str, columns: &[String], y: Option<&str>) -> Result<Law> {
        let formula = match parse_formula(text) {
            Ok(formula) => formula,
            Err(error) => return Err(with_catalogue_hint(text, error)),
        };
        let Formula { name, left, right, .. } = formula;
        let mut reader = Reader::new(text);
        reader.inputs = Vec::new();
        reader.known = columns.to_vec();
        let prediction = reader.read(&right)?;
        let found = reader.columns.clone();
        if found.is_empty() {
            let error = Error::Usage(format!(
                "formula `{text}` uses no column of the table; columns are: {}",
                columns.join(", ")
            ));
            return Err(with_catalogue_hint(text, error));
        }
        if reader.parameters.is_empty() {
            return Err(Error::Usage(format!(
                "formula `{text}` has no parameter to fit: every name in it is a column"
            )));
        }
        let parameters = reader.parameters.len();
        let (response, response_text) = match (&left, y) {
            (Some(left), y) => {
                let written = text[left.span.clone()].to_string();
                let response = reader.read(left)?;
                if reader.parameters.len() > parameters {
                    let unknown = &reader.parameters[parameters];
                    let hint = nearest(unknown, columns.iter().map(String::as_str))
                        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    let message = format!(
                        "the left side may use columns only, `{unknown}` is none{hint} (columns: {})",
                        columns.join(", ")
                    );
                    return Err(point_at(text, &left.span, &message));
                }
                if let Some(y) = y {
                    require(y, columns)?;
                    let k = reader.column(y);
                    if reader.graph.input(k) != response {
                        return Err(Error::Usage(format!(
                            "--y {y} and the left side `{written}` of `{text}` differ: leave one of them out"
                        )));
                    }
                }
                (response, written)
            }
            (None, Some(y)) => {
                require(y, columns)?;
                let k = reader.column(y);
                (reader.graph.input(k), y.to_string())
            }
            (None, None) => {
                let formula = text[right.span.start.min(text.len())..].to_string();
                let wanted = match &name {
                    Some(name) if columns.contains(name) => format!("{name} ~ {formula}"),
                    Some(name) => format!("{name} = COLUMN ~ {formula}"),
                    None => format!("COLUMN ~ {text}"),
                };
                return Err(Error::Usage(format!(
                    "formula `{text}` has no left side: write `{wanted}` or name the response with --y COL"
                )));
            }
        };
        let formula = text[right.span.start.min(text.len())..].to_string();
        let formula = if left.is_none() && name.is_none() { text.to_string() } else { formula };
        Ok(Law {
            name: name.unwrap_or_else(|| text.to_string()),
            formula,
            columns: reader.columns,
            parameters: reader.parameters,
            graph: reader.graph,
            prediction,
            response,
            response_text,
            entry: None,
            mapped: Vec::new(),
        })
    }

    /// The columns that the right side uses.
    pub fn inputs(&self) -> Vec<&str> {
        let used = self.graph.reachable(&[self.prediction]);
        (0..self.columns.len())
            .filter(|&k| used.iter().any(|&id| self.graph.node(id) == crate::formula::graph::Node::Input(k as u32)))
            .map(|k| self.columns[k].as_str())
            .collect()
    }
}

/// Reads an expression of inputs alone, such as a cost, into a graph: `names` are what the inputs may be called, and the
/// input that each stands for.
///
/// # Errors
/// [`Error::Formula`] for what does not parse, [`Error::Usage`] for a name that is no input.
pub fn expression(graph: &mut Graph, text: &str, names: &[(String, usize)]) -> Result<Id> {
    let parsed = parse_formula(text)?;
    let mut reader = Reader::new(text);
    reader.graph = std::mem::take(graph);
    reader.inputs = names.to_vec();
    let id = reader.read(&parsed.right);
    *graph = reader.graph;
    match reader.parameters.first() {
        Some(unknown) => {
            let known: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            let hint =
                nearest(unknown, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean {near}?"));
            Err(Error::Usage(format!("`{text}`: \"{unknown}\" is no input{hint} (inputs: {})", known.join(", "))))
        }
        None => id,
    }
}

/// A text that is nearly a catalogue name is more likely a slip than a formula.
fn with_catalogue_hint(text: &str, error: Error) -> Error {
    if !text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return error;
    }
    match nearest(text, catalogue::CATALOGUE.iter().map(|entry| entry.name)) {
        Some(near) => {
            Error::Usage(format!("unknown law \"{text}\"; did you mean {near}? (`sweepfit laws` lists them)\n{error}"))
        }
        None => Error::Usage(format!("unknown law \"{text}\" (`sweepfit laws` lists them)\n{error}")),
    }
}

fn require(name: &str, columns: &[String]) -> Result<()> {
    if columns.iter().any(|column| column == name) {
        return Ok(());
    }
    let hint = nearest(name, columns.iter().map(String::as_str))
        .map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    Err(Error::Column {
        column: name.to_string(),
        message: format!("is not in the input{hint} (columns: {})", columns.join(", ")),
    })
}

/// Syntax tree to graph, sorting names into columns and parameters.
struct Reader<'a> {
    text: &'a str,
    graph: Graph,
    columns: Vec<String>,
    parameters: Vec<String>,
    /// Catalogue input names and the column index that each stands for.
    inputs: Vec<(String, usize)>,
    /// Names that are columns (typed formulas only; a catalogue law's parameters are never captured by columns).
    known: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader {
            text,
            graph: Graph::default(),
            columns: Vec::new(),
            parameters: Vec::new(),
            inputs: Vec::new(),
            known: Vec::new(),
        }
    }

    fn column(&mut self, name: &str) -> usize {
        position_or_push(&mut self.columns, name)
    }

    fn read(&mut self, expression: &Expression) -> Result<Id> {
        let id = match &expression.kind {
            Kind::Number(value) => self.graph.constant(*value),
            Kind::Name(name) => {
                if let Some(&(_, k)) = self.inputs.iter().find(|(input, _)| input == name) {
                    self.graph.input(k)
                } else if self.known.contains(name) {
                    let k = self.column(name);
                    self.graph.input(k)
                } else {
                    let j = position_or_push(&mut self.parameters, name);
                    if j >= MOST_PARAMETERS {
                        let message = format!("more than {MOST_PARAMETERS} parameters");
                        return Err(point_at(self.text, &expression.span, &message));
                    }
                    self.graph.parameter(j)
                }
            }
            Kind::Negate(inner) => {
                let inner = self.read(inner)?;
                self.graph.negate(inner)
            }
            Kind::Arithmetic(operator, a, b) => {
                let (a, b) = (self.read(a)?, self.read(b)?);
                match operator {
                    Arithmetic::Add => self.graph.add(a, b),
                    Arithmetic::Subtract => self.graph.subtract(a, b),
                    Arithmetic::Multiply => self.graph.multiply(a, b),
                    Arithmetic::Divide => self.graph.divide(a, b),
                    Arithmetic::Power => self.graph.power(a, b),
                }
            }
            Kind::Call(function, arguments) => self.call(*function, arguments)?,
            Kind::Text(_) | Kind::Truth(_) | Kind::Not(_) | Kind::And(..) | Kind::Or(..) | Kind::Comparison(..) => {
                return Err(point_at(self.text, &expression.span, "a law is arithmetic; conditions belong in --where"));
            }
        };
        if self.graph.constant_value(id).is_some_and(|value| !value.is_finite()) {
            return Err(point_at(self.text, &expression.span, "this part is not a finite number"));
        }
        Ok(id)
    }

    fn call(&mut self, function: Function, arguments: &[Expression]) -> Result<Id> {
        let a = self.read(&arguments[0])?;
        let operator = match function {
            Function::Min | Function::Max => {
                let b = self.read(&arguments[1])?;
                return Ok(if function == Function::Min { self.graph.minimum(a, b) } else { self.graph.maximum(a, b) });
            }
            Function::Log2 | Function::Log10 => {
                let base: f64 = if function == Function::Log2 { 2.0 } else { 10.0 };
                let (log, scale) = (self.graph.unary(Unary::Log, a), self.graph.constant(base.ln().recip()));
                return Ok(self.graph.multiply(scale, log));
            }
            Function::Exp => Unary::Exp,
            Function::Log => Unary::Log,
            Function::Log1p => Unary::Log1p,
            Function::Expm1 => Unary::Expm1,
            Function::Sqrt => Unary::Sqrt,
            Function::Abs => Unary::Abs,
            Function::Sin => Unary::Sin,
            Function::Cos => Unary::Cos,
            Function::Tan => Unary::Tan,
            Function::Atan => Unary::Atan,
            Function::Tanh => Unary::Tanh,
            Function::Softplus => Unary::Softplus,
            Function::Sigmoid => Unary::Sigmoid,
        };
        Ok(self.graph.unary(operator, a))
    }
}

fn position_or_push(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<String> {
        ["x", "N", "D", "loss", "E"].map(String::from).to_vec()
    }

    #[test]
    fn a_catalogue_law_is_never_captured_by_columns() {
        let (columns, x) = (columns(), ["x".to_string()]);
        let law = Law::bind("saturating_power", &columns, Mapping { x: &x, y: Some("loss") }).expect("a law");
        assert_eq!(law.parameters, ["E", "A", "alpha"]);
        assert_eq!(law.columns, ["x", "loss"]);
    }

    #[test]
    fn a_typed_formula_takes_columns_as_inputs() {
        let law = Law::bind("mine = log(loss) ~ F + A*x^-alpha", &columns(), Mapping::default()).expect("a law");
        assert_eq!((law.name.as_str(), law.formula.as_str()), ("mine", "F + A*x^-alpha"));
        assert_eq!(law.parameters, ["F", "A", "alpha"]);
        assert_eq!(law.response_text, "log(loss)");
    }

    #[test]
    fn mistakes_are_explained() {
        let x = ["x".to_string()];
        for (text, x, y, message) in [
            ("chinchila", &x[..], Some("loss"), "did you mean chinchilla?"),
            ("chinchilla", &x[..], Some("loss"), "needs 2 inputs (N, D)"),
            ("power", &x[..], None, "--y COL"),
            ("power", &x[..], Some("los"), "did you mean \"loss\"?"),
            ("a*q^p", &[][..], Some("loss"), "uses no column"),
            ("loss ~ x + N", &[][..], None, "no parameter"),
            ("loss ~ a*x", &[][..], Some("D"), "differ"),
            ("loss*b ~ a*x", &[][..], None, "columns only"),
            ("a*x", &[][..], None, "no left side"),
            ("loss ~ a*x + (1/0)", &[][..], None, "not a finite number"),
        ] {
            let error = Law::bind(text, &columns(), Mapping { x, y }).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
