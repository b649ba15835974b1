//! Text to syntax tree: the formula language of laws and of `--where` filters.
//!
//! In: a text. Out: an [`Expression`] whose nodes remember where they stood in the text, so that later errors can point
//! there. Knows the grammar and the names of the functions; knows no columns, no parameters and no data.
//!
//! Precedence, loosest first: `or`, `and`, `not`, comparisons, `+ -`, `* /`, unary minus, `^` (right-associative, its
//! exponent may carry a minus: `x^-a`).

use crate::error::{Error, Result, nearest};
use std::ops::Range;
use unicode_width::UnicodeWidthChar;

/// Deepest nesting accepted; the recursive descent and all later walks stay far inside a default thread stack.
const DEEPEST: usize = 200;
/// Longest text accepted, in tokens; no law of the field comes near.
const LONGEST: usize = 4096;

/// One node of the syntax tree and the bytes of the text that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    pub kind: Kind,
    pub span: Range<usize>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Number(f64),
    Text(String),
    Truth(bool),
    Name(String),
    Negate(Box<Expression>),
    Not(Box<Expression>),
    Arithmetic(Arithmetic, Box<Expression>, Box<Expression>),
    Comparison(Comparison, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Call(Function, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Declares the functions once: name in the language, arity, variant.
macro_rules! functions {
    ($($variant:ident $name:literal $arity:literal),* $(,)?) => {
        /// A function of the formula language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Function { $($variant),* }
        impl Function {
            /// Every function of the language.
            pub const ALL: &'static [Function] = &[$(Function::$variant),*];
            /// The name as typed.
            pub fn name(self) -> &'static str { match self { $(Function::$variant => $name),* } }
            /// How many arguments it takes.
            pub fn arity(self) -> usize { match self { $(Function::$variant => $arity),* } }
        }
    };
}
functions! {
    Exp "exp" 1, Log "log" 1, Log2 "log2" 1, Log10 "log10" 1, Log1p "log1p" 1, Expm1 "expm1" 1, Sqrt "sqrt" 1, Abs "abs" 1,
    Sin "sin" 1, Cos "cos" 1, Tan "tan" 1, Atan "atan" 1, Tanh "tanh" 1, Softplus "softplus" 1, Sigmoid "sigmoid" 1,
    Min "min" 2, Max "max" 2,
}

impl Function {
    fn named(name: &str) -> Option<Function> {
        Function::ALL.iter().copied().find(|function| function.name() == name)
    }
}

/// A law as typed: an optional name, an optional left side, the right side.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    /// `NAME = …`
    pub name: Option<String>,
    /// `… ~ right`
    pub left: Option<Expression>,
    pub right: Expression,
    /// The text that the spans refer to.
    pub text: String,
}

/// Parses `[NAME =] [LEFT ~] RIGHT`, arithmetic only.
///
/// # Errors
/// [`Error::Formula`] with a caret under the offending character.
pub fn parse_formula(text: &str) -> Result<Formula> {
    let mut parser = Parser::new(text)?;
    let mut name = None;
    if let (Some(Token::Name(first) | Token::Quoted(first)), Some(Token::Symbol("="))) =
        (parser.token(0), parser.token(1))
    {
        name = Some(first.clone());
        parser.position += 2;
    }
    let first = parser.sum()?;
    let (left, right) = if parser.take("~") { (Some(first), parser.sum()?) } else { (None, first) };
    parser.finish()?;
    Ok(Formula { name, left, right, text: text.to_string() })
}

/// Parses a `--where` filter: arithmetic, comparisons, `and or not`, string and boolean literals.
///
/// # Errors
/// [`Error::Formula`] with a caret under the offending character.
pub fn parse_filter(text: &str) -> Result<Expression> {
    let mut parser = Parser::new(text)?;
    let expression = parser.disjunction()?;
    parser.finish()?;
    Ok(expression)
}

/// An error about bytes `span` of `text`, with the text and a caret under the span's first character.
pub fn point_at(text: &str, span: &Range<usize>, message: &str) -> Error {
    Error::Formula(format!("{message}{}", picture(text, span)))
}

/// The line of `text` that holds the start of `span`, and a caret under that character as a terminal shows it: a tab is a
/// tab, wide characters take two places, combining ones none. Begins with a line break.
pub(crate) fn picture(text: &str, span: &Range<usize>) -> String {
    let start = (0..=span.start.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let mut margin = String::new();
    for character in text[line_start..start].chars() {
        match character {
            '\t' => margin.push('\t'),
            other => margin.push_str(&" ".repeat(other.width().unwrap_or(0))),
        }
    }
    format!("\n  {}\n  {margin}^", &text[line_start..line_end])
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Name(String),
    /// A name in backticks: always a column or parameter, never a function or keyword.
    Quoted(String),
    Symbol(&'static str),
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 18] =
    ["==", "!=", "<=", ">=", "**", "<", ">", "=", "~", "+", "-", "*", "/", "^", "(", ")", ",", "−"];

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    position: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        Ok(Parser { text, tokens: tokenize(text)?, position: 0, depth: 0 })
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.position + ahead).map(|(token, _)| token)
    }

    fn span(&self) -> Range<usize> {
        self.tokens.get(self.position).map_or(self.text.len()..self.text.len(), |(_, span)| span.clone())
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.token(0), Some(Token::Symbol(found)) if *found == symbol);
        self.position += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.token(0), Some(Token::Name(found)) if found == word);
        self.position += usize::from(found);
        found
    }

    fn unexpected(&self, expected: &str) -> Error {
        let message = match self.token(0) {
            None => format!("the text ends where {expected} should stand"),
            Some(Token::Symbol("**")) => "`**` is not an operator here; write `^` for a power".to_string(),
            Some(Token::Symbol("=")) => {
                "`=` names a law at its start only (`NAME = FORMULA`); write `==` to compare".to_string()
            }
            Some(Token::Symbol("~")) => "only one `~` may stand in a formula, between left and right side".to_string(),
            Some(_) => format!("expected {expected}"),
        };
        point_at(self.text, &self.span(), &message)
    }

    fn finish(&self) -> Result<()> {
        if self.position == self.tokens.len() {
            return Ok(());
        }
        if let Some(Token::Symbol(symbol @ ("<" | ">" | "==" | "!=" | "<=" | ">="))) = self.token(0) {
            return Err(point_at(
                self.text,
                &self.span(),
                &format!("`{symbol}` compares; it belongs in --where, not in a law"),
            ));
        }
        Err(self.unexpected("an operator"))
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEEPEST {
            return Err(point_at(self.text, &self.span(), &format!("nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn disjunction(&mut self) -> Result<Expression> {
        let mut left = self.conjunction()?;
        while self.take_word("or") {
            let right = self.conjunction()?;
            let span = left.span.start..right.span.end;
            left = Expression { kind: Kind::Or(Box::new(left), Box::new(right)), span };
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression> {
        let mut left = self.negation()?;
        while self.take_word("and") {
            let right = self.negation()?;
            let span = left.span.start..right.span.end;
            left = Expression { kind: Kind::And(Box::new(left), Box::new(right)), span };
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Expression> {
        let start = self.span().start;
        if !self.take_word("not") {
            return self.comparison();
        }
        let inner = self.nested(Self::negation)?;
        let span = start..inner.span.end;
        Ok(Expression { kind: Kind::Not(Box::new(inner)), span })
    }

    fn comparison(&mut self) -> Result<Expression> {
        let left = self.sum()?;
        let operator = match self.token(0) {
            Some(Token::Symbol("==")) => Comparison::Equal,
            Some(Token::Symbol("!=")) => Comparison::NotEqual,
            Some(Token::Symbol("<")) => Comparison::Less,
            Some(Token::Symbol("<=")) => Comparison::LessOrEqual,
            Some(Token::Symbol(">")) => Comparison::Greater,
            Some(Token::Symbol(">=")) => Comparison::GreaterOrEqual,
            _ => return Ok(left),
        };
        self.position += 1;
        let right = self.sum()?;
        let span = left.span.start..right.span.end;
        Ok(Expression { kind: Kind::Comparison(operator, Box::new(left), Box::new(right)), span })
    }

    fn sum(&mut self) -> Result<Expression> {
        let mut left = self.product()?;
        loop {
            let operator = match self.token(0) {
                Some(Token::Symbol("+")) => Arithmetic::Add,
                Some(Token::Symbol("-")) => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            self.position += 1;
            let right = self.product()?;
            left = arithmetic(operator, left, right);
        }
    }

    fn product(&mut self) -> Result<Expression> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.token(0) {
                Some(Token::Symbol("*")) => Arithmetic::Multiply,
                Some(Token::Symbol("/")) => Arithmetic::Divide,
                _ => return Ok(left),
            };
            self.position += 1;
            let right = self.unary()?;
            left = arithmetic(operator, left, right);
        }
    }

    fn unary(&mut self) -> Result<Expression> {
        let start = self.span().start;
        if self.take("-") {
            let inner = self.nested(Self::unary)?;
            let span = start..inner.span.end;
            return Ok(Expression { kind: Kind::Negate(Box::new(inner)), span });
        }
        if self.take("+") {
            return self.nested(Self::unary);
        }
        self.power()
    }

    fn power(&mut self) -> Result<Expression> {
        let base = self.primary()?;
        if !self.take("^") {
            return Ok(base);
        }
        let exponent = self.nested(Self::unary)?;
        Ok(arithmetic(Arithmetic::Power, base, exponent))
    }

    fn primary(&mut self) -> Result<Expression> {
        let span = self.span();
        let Some(token) = self.token(0).cloned() else {
            return Err(self.unexpected("a number, a name or `(`"));
        };
        let kind = match token {
            Token::Number(number) => Kind::Number(number),
            Token::Text(text) => Kind::Text(text),
            Token::Quoted(name) => Kind::Name(name),
            Token::Name(name) if self.token(1) == Some(&Token::Symbol("(")) => {
                return self.call(&name, span);
            }
            Token::Name(name) => match name.as_str() {
                "true" => Kind::Truth(true),
                "false" => Kind::Truth(false),
                "pi" => Kind::Number(std::f64::consts::PI),
                "and" | "or" | "not" => return Err(self.unexpected("a number, a name or `(`")),
                name if Function::named(name).is_some() => {
                    return Err(point_at(
                        self.text,
                        &span,
                        &format!("`{name}` is a function: write {name}(…), or `{name}` in backticks for a column"),
                    ));
                }
                _ => Kind::Name(name),
            },
            Token::Symbol("(") => {
                self.position += 1;
                let inner = self.nested(Self::disjunction)?;
                let end = self.span().end;
                if !self.take(")") {
                    return Err(self.unexpected("`)`"));
                }
                // The parentheses belong to the text of what they enclose: a formula is cut out of its line by spans.
                return Ok(Expression { span: span.start..end, ..inner });
            }
            Token::Symbol(_) => return Err(self.unexpected("a number, a name or `(`")),
        };
        self.position += 1;
        Ok(Expression { kind, span })
    }

    fn call(&mut self, name: &str, span: Range<usize>) -> Result<Expression> {
        let Some(function) = Function::named(name) else {
            let names = Function::ALL.iter().map(|function| function.name());
            let hint = match nearest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", Function::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(" ")),
            };
            return Err(point_at(self.text, &span, &format!("unknown function `{name}`; {hint}")));
        };
        self.position += 2;
        let mut arguments = Vec::with_capacity(function.arity());
        if !self.take(")") {
            loop {
                arguments.push(self.nested(Self::disjunction)?);
                if !self.take(",") {
                    break;
                }
            }
            if !self.take(")") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        if arguments.len() != function.arity() {
            let message = format!(
                "`{name}` takes {} argument{}, not {}",
                function.arity(),
                if function.arity() == 1 { "" } else { "s" },
                arguments.len()
            );
            return Err(point_at(self.text, &span, &message));
        }
        let end = self.tokens[self.position - 1].1.end;
        Ok(Expression { kind: Kind::Call(function, arguments), span: span.start..end })
    }
}

fn arithmetic(operator: Arithmetic, left: Expression, right: Expression) -> Expression {
    let span = left.span.start..right.span.end;
    Expression { kind: Kind::Arithmetic(operator, Box::new(left), Box::new(right)), span }
}

fn tokenize(text: &str) -> Result<Vec<(Token, Range<usize>)>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if tokens.len() == LONGEST {
            return Err(point_at(text, &(at..at), &format!("longer than {LONGEST} tokens")));
        }
        let (token, end) = match first {
            '0'..='9' | '.' => number(text, at)?,
            '\'' | '"' => quoted(text, at, first, Token::Text)?,
            '`' => quoted(text, at, first, Token::Quoted)?,
            _ if first.is_alphabetic() || first == '_' => {
                let end = text[at..]
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .map_or(text.len(), |length| at + length);
                (Token::Name(text[at..end].to_string()), end)
            }
            _ => match SYMBOLS.iter().find(|symbol| text[at..].starts_with(**symbol)) {
                // The typographic minus of copied formulas.
                Some(&"−") => (Token::Symbol("-"), at + "−".len()),
                Some(symbol) => (Token::Symbol(symbol), at + symbol.len()),
                None => {
                    return Err(point_at(text, &(at..at), &format!("`{first}` has no meaning here")));
                }
            },
        };
        tokens.push((token, at..end));
        at = end;
    }
    Ok(tokens)
}

/// `2`, `2.`, `.5`, `1e-3`; an `e` that no digit follows ends the number.
fn number(text: &str, start: usize) -> Result<(Token, usize)> {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            at += 1;
        }
        at
    };
    let mut end = digits(start);
    if end < bytes.len() && bytes[end] == b'.' {
        end = digits(end + 1);
    }
    if end < bytes.len() && matches!(bytes[end], b'e' | b'E') {
        let sign = usize::from(end + 1 < bytes.len() && matches!(bytes[end + 1], b'+' | b'-'));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let value = text[start..end].parse::<f64>().ok().filter(|value| value.is_finite());
    let value = value
        .ok_or_else(|| point_at(text, &(start..end), &format!("`{}` is not a finite number", &text[start..end])))?;
    let mantissa = text[start..end].split(['e', 'E']).next().unwrap_or_default();
    if value == 0.0 && mantissa.contains(|digit: char| ('1'..='9').contains(&digit)) {
        return Err(point_at(text, &(start..end), &format!("`{}` is too small to tell from 0", &text[start..end])));
    }
    if text[end..].starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return Err(point_at(text, &(end..end), "an operator is missing after the number"));
    }
    Ok((Token::Number(value), end))
}

/// Text between two marks; a doubled mark stands for itself.
fn quoted(text: &str, start: usize, mark: char, token: fn(String) -> Token) -> Result<(Token, usize)> {
    let mut content = String::new();
    let mut characters = text[start + 1..].char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        if character != mark {
            content.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == mark) {
            characters.next();
            content.push(mark);
        } else {
            return Ok((token(content), start + 1 + offset + mark.len_utf8()));
        }
    }
    Err(point_at(text, &(start..start), &format!("no closing {mark} follows")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders a tree with every parenthesis, to compare structures as text.
    fn structure(expression: &Expression) -> String {
        match &expression.kind {
            Kind::Number(number) => number.to_string(),
            Kind::Text(text) => format!("'{text}'"),
            Kind::Truth(truth) => truth.to_string(),
            Kind::Name(name) => name.clone(),
            Kind::Negate(inner) => format!("(-{})", structure(inner)),
            Kind::Not(inner) => format!("(not {})", structure(inner)),
            Kind::Arithmetic(operator, a, b) => {
                let sign = match operator {
                    Arithmetic::Add => "+",
                    Arithmetic::Subtract => "-",
                    Arithmetic::Multiply => "*",
                    Arithmetic::Divide => "/",
                    Arithmetic::Power => "^",
                };
                format!("({}{sign}{})", structure(a), structure(b))
            }
            Kind::Comparison(operator, a, b) => {
                format!("({} {operator:?} {})", structure(a), structure(b))
            }
            Kind::And(a, b) => format!("({} and {})", structure(a), structure(b)),
            Kind::Or(a, b) => format!("({} or {})", structure(a), structure(b)),
            Kind::Call(function, arguments) => {
                format!("{}({})", function.name(), arguments.iter().map(structure).collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn precedence_and_associativity_are_those_of_written_mathematics() {
        for (text, expected) in [
            ("-x^2", "(-(x^2))"),
            ("x^-a", "(x^(-a))"),
            ("2^3^2", "(2^(3^2))"),
            ("a-b-c", "((a-b)-c)"),
            ("a/b*c", "((a/b)*c)"),
            ("E + A*x^-alpha", "(E+(A*(x^(-alpha))))"),
            ("2.*.5e-3", "(2*0.0005)"),
            ("`loss (val)`*2", "(loss (val)*2)"),
            ("pi*e", "(3.141592653589793*e)"),
        ] {
            assert_eq!(structure(&parse_formula(text).expect(text).right), expected, "{text}");
        }
        let filter = parse_filter("not a == 'x' and b >= 2 or c").expect("a filter");
        assert_eq!(structure(&filter), "(((not (a Equal 'x')) and (b GreaterOrEqual 2)) or c)");
    }

    #[test]
    fn names_and_left_sides_are_taken_apart() {
        let formula = parse_formula("mine = log(y) ~ a + b*x").expect("a formula");
        assert_eq!(formula.name.as_deref(), Some("mine"));
        assert_eq!(structure(&formula.left.expect("a left side")), "log(y)");
        assert_eq!(structure(&formula.right), "(a+(b*x))");
    }

    #[test]
    fn errors_carry_a_caret_and_the_repair() {
        for (text, message, caret) in [
            ("E + A*x^", "the text ends", 8),
            ("E + $x", "`$` has no meaning", 4),
            ("lgo(x)", "did you mean `log`?", 0),
            ("min(x)", "takes 2 arguments, not 1", 0),
            ("2x", "an operator is missing", 1),
            ("a**b", "write `^`", 1),
            ("a = b = c", "write `==`", 6),
            ("(a + b", "`)`", 6),
            ("1e999*x", "not a finite number", 0),
            ("a < b", "--where", 2),
            ("é*`x", "no closing `", 2),
        ] {
            let error = parse_formula(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
            let caret_line = error.lines().last().expect("a caret line");
            assert_eq!(caret_line, format!("  {}^", " ".repeat(caret)), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_and_long_texts_are_refused_not_crashed_on() {
        let deep = format!("{}x{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(parse_formula(&deep).is_err());
        let deep = format!("{}x{}", "(".repeat(1_000), ")".repeat(1_000));
        assert!(parse_formula(&deep).expect_err("too deep").to_string().contains("nested deeper"));
        assert!(parse_formula(&"-".repeat(1_000)).is_err());
        assert!(parse_formula(&vec!["x"; 5_000].join("+")).expect_err("too long").to_string().contains("longer than"));
    }
}
