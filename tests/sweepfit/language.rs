//! The formula language under formulas that nobody chose: random, mutated, deep, long, and full of names that mean
//! something elsewhere. Everything is seeded.

use crate::support::{Folder, run};
use std::collections::HashMap;
use sweepfit::curves::CurveBatch;
use sweepfit::evaluate::wgsl::{Function as Emitted, OPERATORS};
use sweepfit::fit::gpu::program::Program;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Loss, Objective, Space};
use sweepfit::formula::graph::{Graph, Id};
use sweepfit::formula::parse::{Arithmetic, Comparison, Expression, Function, Kind, parse_filter, parse_formula};
use sweepfit::law::catalogue::CATALOGUE;
use sweepfit::law::{Law, Mapping};
use sweepfit::random::Stream;

fn pick<T: Clone>(stream: &mut Stream, from: &[T]) -> T {
    from[stream.integer(0, from.len() as u64 - 1) as usize].clone()
}

/// Names of parameters: WGSL's keywords and types, names of the shaders' own, of functions in other cases, of outputs,
/// of other alphabets, and one that needs quotes.
const PARAMETERS: [&str; 14] =
    ["a", "A", "fn", "let", "f32", "u", "z", "v7", "refine", "Exp", "alpha_se", "größe", "指数", "no plain `word"];
const COLUMNS: [&str; 4] = ["x", "while", "main", "tokens (1e9)"];

fn columns() -> Vec<String> {
    COLUMNS.iter().chain(&["y"]).map(|name| name.to_string()).collect()
}

fn node(kind: Kind) -> Expression {
    Expression { kind, span: 0..0 }
}

fn number(stream: &mut Stream) -> f64 {
    match stream.integer(0, 3) {
        0 => stream.integer(0, 9) as f64,
        1 => pick(stream, &[0.5, 1.5, 1e-3, 12.25, 1e3]),
        _ => (stream.uniform(-3.0, 3.0)).exp(),
    }
}

/// A random law's tree. Bases of powers that are no small whole number are positive, as the language asks.
fn arithmetic(stream: &mut Stream, depth: usize) -> Expression {
    if depth == 0 || stream.unit() < 0.15 {
        return node(match stream.integer(0, 3) {
            0 => Kind::Number(number(stream)),
            1 => Kind::Name(pick(stream, &COLUMNS).to_string()),
            _ => Kind::Name(pick(stream, &PARAMETERS).to_string()),
        });
    }
    let operands =
        |stream: &mut Stream| (Box::new(arithmetic(stream, depth - 1)), Box::new(arithmetic(stream, depth - 1)));
    match stream.integer(0, 9) {
        0 => node(Kind::Negate(operands(stream).0)),
        1..=2 => {
            let function = pick(stream, Function::ALL);
            let arguments = (0..function.arity()).map(|_| arithmetic(stream, depth - 1));
            node(Kind::Call(function, arguments.collect()))
        }
        3 => {
            let whole = stream.integer(0, 5) as f64;
            node(Kind::Arithmetic(Arithmetic::Power, operands(stream).0, Box::new(node(Kind::Number(whole)))))
        }
        4 => {
            let (base, exponent) = operands(stream);
            let size = node(Kind::Call(Function::Abs, vec![*base]));
            let lifted = node(Kind::Arithmetic(Arithmetic::Add, Box::new(size), Box::new(node(Kind::Number(0.25)))));
            node(Kind::Arithmetic(Arithmetic::Power, Box::new(lifted), exponent))
        }
        _ => {
            let operator =
                pick(stream, &[Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide]);
            let (a, b) = operands(stream);
            node(Kind::Arithmetic(operator, a, b))
        }
    }
}

/// A random filter's tree, well-typed or not.
fn condition(stream: &mut Stream, depth: usize) -> Expression {
    let pair = |stream: &mut Stream| (Box::new(condition(stream, depth - 1)), Box::new(condition(stream, depth - 1)));
    if depth == 0 {
        return node(match stream.integer(0, 3) {
            0 => Kind::Text(pick(stream, &["", "val", "it's", "say \"so\"", "–"]).to_string()),
            1 => Kind::Truth(stream.unit() < 0.5),
            _ => return arithmetic(stream, 1),
        });
    }
    let comparisons = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];
    let (a, b) = pair(stream);
    node(match stream.integer(0, 4) {
        0 => Kind::And(a, b),
        1 => Kind::Or(a, b),
        2 => Kind::Not(a),
        3 => Kind::Comparison(pick(stream, &comparisons), a, b),
        _ => return arithmetic(stream, depth),
    })
}

/// The tree in the language itself, with every parenthesis.
fn print(tree: &Expression) -> String {
    let join = |a: &Expression, sign: &str, b: &Expression| format!("({} {sign} {})", print(a), print(b));
    match &tree.kind {
        Kind::Number(number) => format!("{number:?}"),
        Kind::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Kind::Truth(truth) => truth.to_string(),
        Kind::Name(name) => format!("`{}`", name.replace('`', "``")),
        Kind::Negate(inner) => format!("(-{})", print(inner)),
        Kind::Not(inner) => format!("(not {})", print(inner)),
        Kind::Arithmetic(operator, a, b) => {
            let sign = match operator {
                Arithmetic::Add => "+",
                Arithmetic::Subtract => "-",
                Arithmetic::Multiply => "*",
                Arithmetic::Divide => "/",
                Arithmetic::Power => "^",
            };
            join(a, sign, b)
        }
        Kind::Comparison(comparison, a, b) => {
            let sign = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            join(a, sign, b)
        }
        Kind::And(a, b) => join(a, "and", b),
        Kind::Or(a, b) => join(a, "or", b),
        Kind::Call(function, arguments) => {
            format!("{}({})", function.name(), arguments.iter().map(print).collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same_tree() {
    for seed in 0..2000 {
        let mut stream = Stream::new(1, seed);
        let law = print(&arithmetic(&mut stream, 6));
        let read = parse_formula(&law).unwrap_or_else(|error| panic!("{law}: {error}"));
        assert_eq!(print(&read.right), law);
        let filter = print(&condition(&mut stream, 4));
        let read = parse_filter(&filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(print(&read), filter);
    }
}

/// A value and its derivative by one parameter, computed on the tree itself: forward differentiation, exact to rounding,
/// that shares nothing with the graph. `largest` grows by every intermediate size.
fn dual(tree: &Expression, names: &HashMap<&str, (f64, f64)>, largest: &mut f64) -> (f64, f64) {
    let (value, slope) = match &tree.kind {
        Kind::Number(number) => (*number, 0.0),
        Kind::Name(name) => names[name.as_str()],
        Kind::Negate(inner) => {
            let (a, da) = dual(inner, names, largest);
            (-a, -da)
        }
        Kind::Arithmetic(operator, a, b) => {
            let ((a, da), (b, db)) = (dual(a, names, largest), dual(b, names, largest));
            match operator {
                Arithmetic::Add => (a + b, da + db),
                Arithmetic::Subtract => (a - b, da - db),
                Arithmetic::Multiply => (a * b, da * b + a * db),
                Arithmetic::Divide => {
                    *largest = largest.max(1.0 / b.abs());
                    (a / b, (da - a / b * db) / b)
                }
                // The generator's whole exponents are numbers, its other bases are positive.
                Arithmetic::Power if db == 0.0 && b.fract() == 0.0 => {
                    (a.powf(b), if b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) * da })
                }
                Arithmetic::Power => (a.powf(b), a.powf(b) * (db * a.ln() + b * da / a)),
            }
        }
        Kind::Call(function, arguments) => {
            let (a, da) = dual(&arguments[0], names, largest);
            let (value, slope) = match function {
                Function::Exp => (a.exp(), a.exp()),
                Function::Log => (a.ln(), 1.0 / a),
                Function::Log2 => (a.log2(), 1.0 / (a * 2f64.ln())),
                Function::Log10 => (a.log10(), 1.0 / (a * 10f64.ln())),
                Function::Log1p => (a.ln_1p(), 1.0 / (1.0 + a)),
                Function::Expm1 => (a.exp_m1(), a.exp()),
                Function::Sqrt => (a.sqrt(), 0.5 / a.sqrt()),
                Function::Abs => (a.abs(), if a > 0.0 { 1.0 } else { -1.0 }),
                Function::Sin => (a.sin(), a.cos()),
                Function::Cos => (a.cos(), -a.sin()),
                Function::Tan => (a.tan(), 1.0 + a.tan() * a.tan()),
                Function::Atan => (a.atan(), 1.0 / (1.0 + a * a)),
                Function::Tanh => (a.tanh(), 1.0 - a.tanh() * a.tanh()),
                Function::Softplus => (a.max(0.0) + (-a.abs()).exp().ln_1p(), 1.0 / (1.0 + (-a).exp())),
                Function::Sigmoid => {
                    let s = 1.0 / (1.0 + (-a).exp());
                    (s, s / (1.0 + a.exp()))
                }
                Function::Min | Function::Max => {
                    let (b, db) = dual(&arguments[1], names, largest);
                    let first = if *function == Function::Min { a < b } else { a > b };
                    // Equal arguments have no derivative; a rounding decides between them.
                    *largest = if a == b || (a - b).abs() > 1e-9 { *largest } else { f64::INFINITY };
                    return if first { (a, da) } else { (b, db) };
                }
            };
            *largest = largest.max(slope.abs());
            (value, slope * da)
        }
        other => panic!("{other:?} is no arithmetic"),
    };
    for size in [value.abs(), slope.abs()] {
        *largest = if size <= *largest {
            *largest
        } else if size.is_nan() {
            f64::INFINITY
        } else {
            size
        };
    }
    (value, slope)
}

/// Rounding of values and slopes whose intermediate steps stay below [`TAME`].
const AGREEMENT: f64 = 1e-9;
const TAME: f64 = 1e3;

#[test]
fn simplification_keeps_values_and_derivatives_are_those_of_the_tree() {
    let columns = columns();
    let (mut bound, mut compared) = (0, 0);
    for seed in 0..3000 {
        let mut stream = Stream::new(2, seed);
        let text = format!("`y` ~ `x`*`a` + {}", print(&arithmetic(&mut stream, 5)));
        let tree = parse_formula(&text).expect("printed trees read back").right;
        let mut law = match Law::bind(&text, &columns, Mapping::default()) {
            Ok(law) => law,
            // 1/0 and log(0) of numbers alone, which the reader refuses.
            Err(error) => {
                assert!(error.to_string().contains("not a finite number"), "{text}: {error}");
                continue;
            }
        };
        bound += 1;
        let slopes: Vec<Id> = (0..law.parameters.len()).map(|j| law.graph.differentiate(law.prediction, j)).collect();
        for _ in 0..4 {
            let raw: Vec<f64> = law.columns.iter().map(|_| stream.uniform(0.2, 3.0)).collect();
            let theta: Vec<f64> = law.parameters.iter().map(|_| stream.uniform(-2.0, 2.0)).collect();
            for (j, &slope) in slopes.iter().enumerate() {
                let mut names: HashMap<&str, (f64, f64)> = HashMap::new();
                names.extend(law.columns.iter().zip(&raw).map(|(name, &value)| (name.as_str(), (value, 0.0))));
                let seeded = |k: usize| (theta[k], f64::from(u8::from(k == j)));
                names.extend(law.parameters.iter().enumerate().map(|(k, name)| (name.as_str(), seeded(k))));
                let mut largest = 0.0;
                let (value, derivative) = dual(&tree, &names, &mut largest);
                if largest > TAME {
                    continue;
                }
                compared += 1;
                let tolerance = AGREEMENT * (1.0 + largest) * (1.0 + largest);
                for (what, node, expected) in [("value", law.prediction, value), ("slope", slope, derivative)] {
                    let found = law.graph.evaluate(node, &raw, &theta);
                    assert!(
                        (found - expected).abs() <= tolerance,
                        "{text}\n{what} by {} at {raw:?}, {theta:?}: {found}, on the tree {expected}",
                        law.parameters[j]
                    );
                }
            }
        }
    }
    assert!(bound > 2500 && compared > 10_000, "{bound} laws were bound, {compared} derivatives compared");
}

/// Pieces that texts are made of: the language's own, other languages', and what no language has.
const PIECES: [&str; 48] = [
    "x",
    "y",
    "a",
    "E",
    "(",
    ")",
    "+",
    "-",
    "*",
    "/",
    "^",
    "~",
    "=",
    "==",
    "!=",
    "<=",
    ">",
    ",",
    ".",
    "1",
    "2.5",
    ".5e-3",
    "1e400",
    "1e-400",
    "9999999999999999999999",
    "e",
    "pi",
    "exp(",
    "log1p(",
    "min(",
    "max",
    "not ",
    "and ",
    "or ",
    "true",
    "'",
    "\"",
    "`",
    "``",
    " ",
    "\t",
    "\n",
    "−",
    "×",
    "é",
    "指",
    "\u{301}",
    "\u{1F600}",
];

/// The caret of a message stands under its text, not beyond its end.
fn check_message(text: &str, message: &str) {
    let lines: Vec<&str> = message.lines().collect();
    let [.., shown, caret] = lines[..] else { panic!("{text:?}: {message}") };
    assert!(caret.ends_with('^') && caret.trim() == "^", "{text:?}: {message}");
    let places: usize = shown.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum();
    assert!(caret.chars().count() <= places + 1, "{text:?}: {message}");
}

#[test]
fn random_texts_are_read_or_refused_with_a_caret() {
    for seed in 0..20_000 {
        let mut stream = Stream::new(3, seed);
        let pieces = stream.integer(0, 24);
        let text: String = (0..pieces).map(|_| pick(&mut stream, &PIECES)).collect();
        for error in [parse_formula(&text).err(), parse_filter(&text).err()].into_iter().flatten() {
            check_message(&text, &error.to_string());
        }
    }
}

#[test]
fn mutated_laws_are_bound_compiled_or_refused() {
    let columns = ["x", "N", "D", "U", "k", "X", "y"].map(String::from);
    let mut compiled = 0;
    for seed in 0..2000 {
        let mut stream = Stream::new(4, seed);
        let mut text: Vec<char> =
            pick(&mut stream, CATALOGUE.iter().map(|e| e.formula).collect::<Vec<_>>().as_slice()).chars().collect();
        for _ in 0..stream.integer(1, 3) {
            let at = stream.integer(0, text.len() as u64 - 1) as usize;
            match stream.integer(0, 2) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, text[stream.integer(0, text.len() as u64 - 1) as usize]),
                _ => {
                    text[at] =
                        pick(&mut stream, &['(', ')', '+', '*', '^', '-', '/', '1', '0', 'x', 'a', '.', ' ', 'é'])
                }
            }
        }
        let text: String = text.into_iter().collect();
        let Ok(law) = Law::bind(&text, &columns, Mapping { x: &[], y: Some("y") }) else { continue };
        let objective = Objective { space: pick(&mut stream, &[Space::Log, Space::Linear]), loss: Loss::Squares };
        let named = law.columns.clone();
        compiled += usize::from(Plan::new(law, objective, &[], Weighting::Even, false, &named).is_ok());
    }
    assert!(compiled > 500, "{compiled} mutations are laws");
}

/// Whether naga takes the text of a function of these nodes.
fn validate(graph: &Graph, outputs: &[Id], inputs: usize, parameters: usize) -> Result<(), String> {
    let function = Emitted { name: "f", result: outputs[0], outputs, output: ("outputs", "Outputs") };
    let text = format!(
        "alias Inputs = array<f32, {}>;\nalias Coordinates = array<f32, {parameters}>;\nalias Outputs = array<f32, {}>;\n\
         {OPERATORS}\n{}",
        inputs.max(1),
        outputs.len(),
        function.emit(graph)
    );
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
    validator.validate(&module).map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[test]
fn every_random_law_becomes_valid_wgsl() {
    let columns = columns();
    for seed in 0..300 {
        let mut stream = Stream::new(5, seed);
        let text = format!("`y` ~ `x`*`a` + {}", print(&arithmetic(&mut stream, 6)));
        let Ok(mut law) = Law::bind(&text, &columns, Mapping::default()) else { continue };
        let mut outputs = vec![law.prediction];
        for j in 0..law.parameters.len() {
            outputs.push(law.graph.differentiate(law.prediction, j));
        }
        if let Err(error) = validate(&law.graph, &outputs, law.columns.len(), law.parameters.len()) {
            panic!("{text}: {error}");
        }
    }
}

fn plan(text: &str) -> Plan {
    let columns = ["x", "y"].map(String::from).to_vec();
    let law =
        Law::bind(text, &columns, Mapping { x: &[], y: Some("y") }).unwrap_or_else(|error| panic!("{text}: {error}"));
    let objective = Objective { space: Space::Linear, loss: Loss::Squares };
    Plan::new(law, objective, &[], Weighting::Even, false, &columns).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn program(plan: &Plan) -> Program {
    let empty = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); 2] };
    Program::compose(&plan.model, Loss::Squares, &plan.pack(&empty).problem.grid)
}

#[test]
fn what_parameters_are_called_reaches_no_shader() {
    let text = |names: [&str; 3]| format!("`{}` + `{}`*x^-`{}`", names[0], names[1], names[2]);
    let expected = program(&plan(&text(["p", "q", "r"])));
    for names in [
        ["fn", "var", "while"],
        ["u", "z", "tame"],
        ["search", "refine", "basins_of_curve"],
        ["operator_exp", "rows", "STRIDE"],
        ["f32", "ptr", "array"],
        ["v1", "v2", "v3"],
        ["exp", "log", "pi"],
        ["true", "not", "and"],
        ["E", "e", "Pi"],
        ["指数", "größe", "\u{1F600}"],
        ["a_se", "status", "*/ }"],
    ] {
        assert!(program(&plan(&text(names))) == expected, "{names:?}");
    }
}

#[test]
fn deep_texts_are_refused_and_never_overflow_the_stack() {
    let deep =
        |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(100_000), close.repeat(100_000));
    for text in [
        deep("(", "x", ")"),
        deep("-", "x", ""),
        deep("+", "x", ""),
        deep("exp(", "x", ")"),
        deep("min(1,", "x", ")"),
        deep("x^", "x", ""),
        deep("x+", "x", ""),
        deep("x*(", "x", ")"),
        deep("not ", "x > 1", ""),
        deep("(not ", "x > 1", ")"),
        deep("x > 1 and ", "x > 1", ""),
        "(".repeat(100_000),
        ")".repeat(100_000),
    ] {
        let start: String = text.chars().take(12).collect();
        assert!(parse_formula(&text).is_err() && parse_filter(&text).is_err(), "{start}…");
        assert!(Law::bind(&text, &["x".to_string()], Mapping::default()).is_err(), "{start}…");
    }
}

/// Legal formulas at the edges of what is accepted; each is bound, differentiated twice, separated, compiled to tapes and
/// emitted. Their number of nodes, or of sets of linear parameters, would grow exponentially if a step took sharing apart.
#[test]
fn long_but_legal_formulas_compile() {
    let list =
        |count: usize, of: &dyn Fn(usize) -> String, sign: &str| (0..count).map(of).collect::<Vec<_>>().join(sign);
    let nested = |count: usize, open: &str, inner: &str| format!("{}{inner}{}", open.repeat(count), ")".repeat(count));
    for (label, text) in [
        ("a long sum", format!("a*x + {}", list(2000, &|_| "x".into(), "+"))),
        (
            "a long alternating sum",
            format!("a + {}", list(1300, &|k| format!("x{}", if k % 2 == 0 { "*x" } else { "" }), "-")),
        ),
        ("a long product", format!("a + {}", list(1900, &|_| "x".into(), "*"))),
        ("a long quotient", format!("a + b/{}", list(1900, &|_| "x".into(), "/"))),
        (
            "a long product under a logarithm",
            format!("a + log({})", list(400, &|k| format!("exp(b*x/{})", k + 1), "*")),
        ),
        ("a deep function", format!("a + b*{}", nested(150, "atan(", "c*x"))),
        ("a deep exponential", format!("a + {}", nested(100, "exp(-", "c*x"))),
        ("a deep bracket", format!("a + {}", nested(150, "b*x + (", "c"))),
        ("powers of powers", "a + b*log((((((1 + exp(c*x))^64)^64)^64)^64)^64)".to_string()),
        ("powers of powers under an exponential", "a + b*exp(-c*(((((x/9)^64)^64)^64)^64)^64)".to_string()),
        ("brackets that multiply out", format!("exp(-{})", list(40, &|k| format!("(a{k} + x)"), "*"))),
        ("thirty products of two", list(30, &|k| format!("a{k}*b{k}*x^{}", k + 1), "+")),
        ("thirty exponentials", list(30, &|k| format!("a{k}*exp(-b{k}*x)"), "+")),
        ("sixty-four factors", list(64, &|k| format!("(a{k} + x)"), "*")),
    ] {
        let plan = plan(&text);
        let model = &plan.model;
        let mut outputs = vec![model.prediction];
        outputs.extend(&model.gradient);
        if let Err(error) = validate(&model.graph, &outputs, model.inputs.len(), model.len()) {
            panic!("{label}: {}", error.chars().take(2000).collect::<String>());
        }
    }
    let columns = ["x".to_string()];
    let many = list(65, &|k| format!("a{k}*x"), "+");
    let error = Law::bind(&many, &columns, Mapping { x: &[], y: Some("x") }).expect_err("too many parameters");
    assert!(error.to_string().contains("more than 64 parameters"), "{error}");
}

#[test]
fn carets_stand_under_their_character_in_a_terminal() {
    for (text, margin) in [
        ("größe*$", "      "),
        // Wide characters take two places, combining ones none.
        ("指数*$", "     "),
        ("`e\u{301}`*$", "    "),
        ("\ta*$", "\t  "),
        ("a*x +\n  b*$", "    "),
    ] {
        let error = parse_formula(text).expect_err(text).to_string();
        let caret = error.lines().last().expect("a caret line");
        assert_eq!(caret, format!("  {margin}^"), "{text:?}: {error}");
    }
}

#[test]
fn numbers_beyond_f64_are_refused_and_others_are_read_exactly() {
    for (text, message) in [
        ("a*x + 1e309", "not a finite number"),
        ("a*x + 1e-400", "too small to tell from 0"),
        ("a*x + 0.000e-999*x", ""),
        ("a*x + 1/0", "not a finite number"),
        ("a*x + 0/0", "not a finite number"),
        ("a*x + log(0)", "not a finite number"),
        ("a*x + (-8)^(1/3)", "not a finite number"),
        ("a*x + 10^400", "not a finite number"),
        ("a*x/0", ""),
        ("a*x + 4.9406564584124654e-324", ""),
        ("a*x + 1.7976931348623157e308", ""),
    ] {
        let bound = Law::bind(text, &["x".to_string()], Mapping { x: &[], y: Some("x") });
        match (bound, message) {
            (Ok(_), "") => {}
            (Err(error), message) if !message.is_empty() => {
                assert!(error.to_string().contains(message), "{text}: {error}");
                check_message(text, &error.to_string());
            }
            (other, _) => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn names_that_would_clash_in_the_output_are_refused_and_others_are_kept_apart() {
    let folder = Folder::new();
    let rows: String =
        (1..9).map(|x| format!("{x},{}\n", 2.0 + 3.0 / f64::from(x) + 0.01 * f64::from(x % 3))).collect();
    let sweep = folder.text("sweep.csv", &format!("x,y\n{rows}"));
    let out = folder.file("fits.csv");
    let fit = |law: &str| run(&["fit", &sweep, "--law", law, "-o", &out]);
    for name in ["E_se", "status", "points", "law", "condition"] {
        let ran = fit(&format!("y ~ E + {name}*x^-a"));
        assert!(ran.code == 2 && ran.stderr.contains(name), "{name}: {ran:?}");
        assert_eq!(folder.names(), ["sweep.csv"], "{name}");
    }
    // Twice different, for one parameter.
    for (flag, values) in
        [("--fix", ["a=0.5", "a=0.6"]), ("--grid", ["a=0.1:1:4", "a=0.1:1:5"]), ("--bound", ["a=0:", "a=0.1:2"])]
    {
        let ran = run(&["fit", &sweep, "--law", "y ~ E + B*x^-a", flag, values[0], flag, values[1], "-o", &out]);
        assert!(ran.code == 2 && ran.stderr.contains("given twice"), "{flag}: {ran:?}");
    }
    // Names that differ in case only are told apart by readers that fold it, in one law and in laws of such names.
    for laws in [&["y ~ E + e*x^-Pi"][..], &["m = y ~ E + e*x^-Pi", "M = y ~ e + E/x"]] {
        let laws = laws.iter().flat_map(|law| ["--law", law]);
        let ran = run(&["fit", &sweep].into_iter().chain(laws).chain(["-o", &out]).collect::<Vec<_>>());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let header = std::fs::read_to_string(folder.path("fits.csv")).expect("fits");
        let header = header.lines().next().expect("a header").to_lowercase();
        let mut names: Vec<&str> = header.split(',').collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{header}");
        assert!(ran.stderr.contains("differ only in case"), "{}", ran.stderr);
    }
}
