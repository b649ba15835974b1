//! Allocation: how a budget is best divided between the two inputs of a law.
//!
//! In: a law of two inputs, a cost of both, and for each row parameters, their covariance and a budget. Out: the inputs of
//! least loss among those that cost the budget, their ratio and their exponents in the budget, with intervals, and what
//! it costs to follow a rule instead. Works in u = log of the first and v = log of the second input:
//!
//! minimise f(u, v) where c(u, v) = log cost = log budget, that is G = f_u c_v − f_v c_u = 0.
//!
//! A grid along the constraint finds the valleys, Newton steps inside a bracket end in the deepest. Slopes in the
//! parameters follow from differentiating G = 0 and c = log budget; all derivatives are exact. Rows are solved side by
//! side, one column per unknown.

use super::fits::{Fitted, FittedLaw};
use super::forecast::percentiles;
use super::student::Quantiles;
use super::surface::{by_rows, variance};
use crate::error::{Error, Result, nearest};
use crate::evaluate::tape::{Tape, map_columns};
use crate::fit::Space;
use crate::formula::graph::{Graph, Id, MOST_PARAMETERS, Node, Unary};
use crate::formula::parse::parse_formula;
use crate::law::expression;

/// Inputs are looked for between e^LOWEST and e^HIGHEST: from a billionth, for models counted in billions, to 1e40.
const LOWEST: f64 = -20.75;
const HIGHEST: f64 = 92.1;
/// Cells of the grid along the constraint: a factor of 3.2 between neighbours.
const CELLS: usize = 97;
/// Bisection alone ends after so many halvings of the whole range.
const MOST_STEPS: usize = 120;

/// A law and a cost, ready to allocate any budget.
#[derive(Debug)]
pub struct Allocator {
    space: Space,
    parameters: usize,
    /// c, c_v over θ, u, v.
    cost: Tape,
    /// f, G, dG/du along the constraint.
    valley: Tape,
    /// t's slopes, then those of u, v, v − u and both exponents along the optimum, P each; before them the exponents.
    slopes: Tape,
    rules: Vec<Rule>,
}

/// An input as a formula of the other.
#[derive(Debug)]
struct Rule {
    /// log cost and its slope over θ and w, the logarithm of the free input.
    cost: Tape,
    /// u and v.
    place: Tape,
}

/// A value with the ends of its interval.
pub type Estimate = [f64; 3];

/// How a budget is best divided; NaN throughout where there is no inner optimum.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    pub inputs: [Estimate; 2],
    pub predicted: Estimate,
    /// The second input over the first.
    pub ratio: Estimate,
    /// d log input / d log budget.
    pub exponents: [Estimate; 2],
    /// What following each rule adds to the left side.
    pub regret: Vec<f64>,
}

impl Allocator {
    /// Compiles a law of two inputs, a cost and rules such as `D=20*N`.
    ///
    /// # Errors
    /// A law of more or fewer inputs; a cost or rule that does not parse, names something else than the inputs, or leaves
    /// one of them out of the cost.
    pub fn new(fitted: &FittedLaw, space: Space, cost: &str, rules: &[String]) -> Result<Allocator> {
        let &[first, second] = fitted.inputs.as_slice() else {
            return Err(Error::Usage(format!(
                "law {} has {} input(s) ({}); a budget is divided between two",
                fitted.law.name,
                fitted.inputs.len(),
                fitted.input_names().join(", ")
            )));
        };
        let parameters = fitted.law.parameters.len();
        if parameters + 2 > MOST_PARAMETERS {
            return Err(Error::Usage(format!("law {} has too many parameters to allocate by", fitted.law.name)));
        }
        let names = names(fitted);
        let mut graph = fitted.law.graph.clone();
        let cost_id = expression(&mut graph, cost, &names)?;
        for (k, position) in [(first, 0), (second, 1)] {
            if !reads(&graph, cost_id, k) {
                return Err(Error::Usage(format!(
                    "--cost `{cost}` does not grow with {}: name both inputs in it",
                    fitted.input_names()[position]
                )));
            }
        }
        let (j_u, j_v) = (parameters, parameters + 1);
        let (u, v) = (graph.parameter(j_u), graph.parameter(j_v));
        let (x, y) = (graph.unary(Unary::Exp, u), graph.unary(Unary::Exp, v));
        let place = |graph: &mut Graph, roots: &[Id], x: Id, y: Id| {
            graph.substitute(roots, |graph, id| match graph.node(id) {
                Node::Input(k) if k as usize == first => Some(x),
                Node::Input(k) if k as usize == second => Some(y),
                _ => None,
            })
        };
        let log_cost = graph.unary(Unary::Log, cost_id);
        let f_and_c = place(&mut graph, &[fitted.law.prediction, log_cost], x, y);
        let (f, c) = (f_and_c[0], f_and_c[1]);
        let (f_u, f_v) = (graph.differentiate(f, j_u), graph.differentiate(f, j_v));
        let (c_u, c_v) = (graph.differentiate(c, j_u), graph.differentiate(c, j_v));
        let (left, right) = (graph.multiply(f_u, c_v), graph.multiply(f_v, c_u));
        let g = graph.subtract(left, right);
        let (g_u, g_v) = (graph.differentiate(g, j_u), graph.differentiate(g, j_v));
        // Along the constraint dv/du = −c_u/c_v.
        let ratio = graph.divide(c_u, c_v);
        let bend = graph.negate(ratio);
        let turned = graph.multiply(g_v, bend);
        let along = graph.add(g_u, turned);
        // G = 0 and c = log budget, differentiated by log budget.
        let (p, q) = (graph.multiply(g_u, c_v), graph.multiply(g_v, c_u));
        let determinant = graph.subtract(p, q);
        let negated = graph.negate(g_v);
        let exponents = [graph.divide(negated, determinant), graph.divide(g_u, determinant)];
        let t = if space == Space::Log { graph.unary(Unary::Log, f) } else { f };
        let mut roots = exponents.to_vec();
        for j in 0..parameters {
            let g_j = graph.differentiate(g, j);
            let over = graph.divide(g_j, along);
            let du = graph.negate(over);
            let dv = graph.multiply(bend, du);
            roots.extend([graph.differentiate(t, j), du, dv, graph.subtract(dv, du)]);
            for exponent in exponents {
                let (own, by_u, by_v) = (
                    graph.differentiate(exponent, j),
                    graph.differentiate(exponent, j_u),
                    graph.differentiate(exponent, j_v),
                );
                let (by_u, by_v) = (graph.multiply(by_u, du), graph.multiply(by_v, dv));
                let moved = graph.add(by_u, by_v);
                roots.push(graph.add(own, moved));
            }
        }
        let rules = rules.iter().map(|text| {
            let w = graph.parameter(j_u);
            let (position, right) = rule(fitted, &mut graph, text, &names)?;
            let other = graph.unary(Unary::Exp, w);
            let right = place(&mut graph, &[right], other, other)[0];
            let (x, y) = if position == 0 { (right, other) } else { (other, right) };
            let c = place(&mut graph, &[log_cost], x, y)[0];
            let slope = graph.differentiate(c, j_u);
            let (u, v) = (graph.unary(Unary::Log, x), graph.unary(Unary::Log, y));
            Ok(Rule { cost: by_rows(&mut graph, &[c, slope], &[]), place: by_rows(&mut graph, &[u, v], &[]) })
        });
        let rules = rules.collect::<Result<Vec<_>>>()?;
        Ok(Allocator {
            space,
            parameters,
            cost: by_rows(&mut graph, &[c, c_v], &[]),
            valley: by_rows(&mut graph, &[f, g, along], &[]),
            slopes: by_rows(&mut graph, &roots, &[]),
            rules,
        })
    }

    /// Allocates `budgets[i]` under the fit `fits[i]`, side by side.
    pub fn allocate(&self, fits: &[&Fitted], budgets: &[f64], level: f64) -> Vec<Allocation> {
        let p = self.parameters;
        let theta = columns(p, fits.len(), |i| &fits[i].parameters);
        let (u, v, f) = self.solve(&theta, budgets);
        let mut all = theta.clone();
        all.extend([u.clone(), v.clone()]);
        let slopes = run(&self.slopes, &all);
        let regret = self.regret(&theta, budgets, &f);
        let mut quantiles = Quantiles::new(level);
        (0..fits.len())
            .map(|i| {
                let fit = fits[i];
                let t = if self.space == Space::Log { f[i].ln() } else { f[i] };
                let regret = regret.iter().map(|regret| regret[i]).collect();
                let point = [t, u[i], v[i], v[i] - u[i], slopes[0][i], slopes[1][i]];
                let quantities = if fit.draws.is_empty() {
                    let quantile = quantiles.two_sided(fit.freedom);
                    let half = |kind: usize| {
                        let slope = |j: usize| slopes[2 + 6 * j + kind][i];
                        let variance = fit.covariance.as_ref().map(|c| variance(c, slope, p));
                        quantile * variance.unwrap_or(f64::NAN).sqrt()
                    };
                    std::array::from_fn(|kind| [point[kind], point[kind] - half(kind), point[kind] + half(kind)])
                } else {
                    self.from_draws(point, &fit.draws, budgets[i], level)
                };
                self.allocation(quantities, regret)
            })
            .collect()
    }

    /// t, u, v, v − u and the exponents with their ends, as the user counts them.
    fn allocation(&self, [t, u, v, ratio, a, b]: [Estimate; 6], regret: Vec<f64>) -> Allocation {
        let exp = |estimate: Estimate| estimate.map(f64::exp);
        let predicted = if self.space == Space::Log { exp(t) } else { t };
        Allocation { inputs: [exp(u), exp(v)], predicted, ratio: exp(ratio), exponents: [a, b], regret }
    }

    fn from_draws(&self, point: [f64; 6], draws: &[f64], budget: f64, level: f64) -> [Estimate; 6] {
        let rows: Vec<&[f64]> = draws.chunks_exact(self.parameters).collect();
        let theta = columns(self.parameters, rows.len(), |i| rows[i]);
        let (u, v, f) = self.solve(&theta, &vec![budget; rows.len()]);
        let mut all = theta;
        all.extend([u.clone(), v.clone()]);
        let slopes = run(&self.slopes, &all);
        let t = if self.space == Space::Log { f.iter().map(|f| f.ln()).collect() } else { f };
        let ratio = u.iter().zip(&v).map(|(u, v)| v - u).collect();
        let kinds = [t, u, v, ratio, slopes[0].clone(), slopes[1].clone()];
        let mut quantities = [[f64::NAN; 3]; 6];
        for ((quantity, drawn), point) in quantities.iter_mut().zip(kinds).zip(point) {
            let [low, high] = percentiles(drawn, level).unwrap_or([f64::NAN; 2]);
            *quantity = [point, low, high];
        }
        quantities
    }

    /// u, v and f of every row's optimum; NaN where there is none inside the range.
    fn solve(&self, theta: &[Vec<f64>], budgets: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let rows = budgets.len();
        let goal: Vec<f64> = budgets.iter().map(|budget| budget.ln()).collect();
        let cell = |cell: usize| LOWEST + (HIGHEST - LOWEST) * cell as f64 / (CELLS - 1) as f64;
        let spread = |column: &Vec<f64>| column.iter().flat_map(|&value| [value; CELLS]).collect::<Vec<f64>>();
        let wide: Vec<Vec<f64>> = theta.iter().map(spread).collect();
        let grid: Vec<f64> = (0..rows).flat_map(|_| (0..CELLS).map(cell)).collect();
        let f = self.along(&wide, &grid, &spread(&goal)).1.swap_remove(0);
        // The deepest cell that is lower than both neighbours brackets the optimum.
        let (mut low, mut high) = (vec![f64::NAN; rows], vec![f64::NAN; rows]);
        for (row, f) in f.chunks(CELLS).enumerate() {
            let reachable = |cell: usize| if f[cell].is_finite() { f[cell] } else { f64::INFINITY };
            let deepest = (0..CELLS).min_by(|&a, &b| reachable(a).total_cmp(&reachable(b))).unwrap_or(0);
            let inner = deepest > 0 && deepest + 1 < CELLS && f[deepest - 1].is_finite() && f[deepest + 1].is_finite();
            if inner {
                (low[row], high[row]) = (cell(deepest - 1), cell(deepest + 1));
            }
        }
        let u = roots(low, high, |u| {
            let values = self.along(theta, u, &goal).1;
            (values[1].clone(), values[2].clone())
        });
        let (v, mut values) = self.along(theta, &u, &goal);
        (u, v, values.swap_remove(0))
    }

    /// v on the constraint for each u, and there f, G and dG/du.
    fn along(&self, theta: &[Vec<f64>], u: &[f64], goal: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let at = |v: &[f64]| {
            let mut all = theta.to_vec();
            all.extend([u.to_vec(), v.to_vec()]);
            all
        };
        let bounds = |end: f64| u.iter().map(|u| if u.is_nan() { f64::NAN } else { end }).collect();
        let v = roots(bounds(LOWEST), bounds(HIGHEST), |v| {
            let mut values = run(&self.cost, &at(v));
            values[0].iter_mut().zip(goal).for_each(|(c, goal)| *c -= goal);
            let slope = values.swap_remove(1);
            (values.swap_remove(0), slope)
        });
        let values = run(&self.valley, &at(&v));
        (v, values)
    }

    /// What each rule adds to the loss, row by row.
    fn regret(&self, theta: &[Vec<f64>], budgets: &[f64], best: &[f64]) -> Vec<Vec<f64>> {
        let rows = budgets.len();
        let with = |more: &[&[f64]]| {
            let mut all = theta.to_vec();
            all.extend(more.iter().map(|column| column.to_vec()));
            all
        };
        let regret = |rule: &Rule| {
            let w = roots(vec![LOWEST; rows], vec![HIGHEST; rows], |w| {
                let mut values = run(&rule.cost, &with(&[w, w]));
                values[0].iter_mut().zip(budgets).for_each(|(c, budget)| *c -= budget.ln());
                let slope = values.swap_remove(1);
                (values.swap_remove(0), slope)
            });
            let place = run(&rule.place, &with(&[&w, &w]));
            let f = run(&self.valley, &with(&[&place[0], &place[1]])).swap_remove(0);
            f.iter().zip(best).map(|(f, best)| f - best).collect()
        };
        self.rules.iter().map(regret).collect()
    }
}

/// What a user may call the inputs of a law, and the columns of the graph behind the names.
fn names(fitted: &FittedLaw) -> Vec<(String, usize)> {
    let mut names: Vec<(String, usize)> = fitted.inputs.iter().map(|&k| (fitted.law.columns[k].clone(), k)).collect();
    for alias in fitted.law.entry.map_or(&[][..], |entry| entry.inputs) {
        if let Some(position) = fitted.input(alias)
            && !names.iter().any(|(name, _)| name == alias)
        {
            names.push((alias.to_string(), fitted.inputs[position]));
        }
    }
    names
}

fn reads(graph: &Graph, id: Id, k: usize) -> bool {
    graph.reachable(&[id]).iter().any(|&id| graph.node(id) == Node::Input(k as u32))
}

/// The input that a rule gives, and its formula of the other.
fn rule(fitted: &FittedLaw, graph: &mut Graph, text: &str, names: &[(String, usize)]) -> Result<(usize, Id)> {
    let wrong = |message: String| Error::Usage(format!("--rule {text}: {message}"));
    let shown = || names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let formula = parse_formula(text)?;
    let Some(name) = formula.name else {
        return Err(wrong(format!("give INPUT=FORMULA, as in D=20*N (inputs: {})", shown())));
    };
    let Some(position) = fitted.input(&name) else {
        let hint = nearest(&name, names.iter().map(|(name, _)| name.as_str()))
            .map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(wrong(format!("{name} is no input{hint} (inputs: {})", shown())));
    };
    let right = expression(graph, text, names)?;
    if reads(graph, right, fitted.inputs[position]) {
        return Err(wrong(format!("{name} stands on both sides")));
    }
    Ok((position, right))
}

fn columns<'a>(count: usize, rows: usize, row: impl Fn(usize) -> &'a [f64]) -> Vec<Vec<f64>> {
    (0..count).map(|j| (0..rows).map(|i| row(i)[j]).collect()).collect()
}

fn run(tape: &Tape, columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    map_columns(tape, &columns, columns[0].len())
}

/// Roots of increasing functions, one per row, by Newton steps inside a bracket that is halved where they leave it. NaN
/// where the function does not rise through zero between `low` and `high`.
fn roots(mut low: Vec<f64>, mut high: Vec<f64>, mut f: impl FnMut(&[f64]) -> (Vec<f64>, Vec<f64>)) -> Vec<f64> {
    let rises = {
        let (below, above) = (f(&low).0, f(&high).0);
        below.iter().zip(&above).map(|(below, above)| *below <= 0.0 && *above >= 0.0).collect::<Vec<bool>>()
    };
    let mut x: Vec<f64> = low.iter().zip(&high).map(|(low, high)| 0.5 * (low + high)).collect();
    for _ in 0..MOST_STEPS {
        let (value, slope) = f(&x);
        let mut moved = 0.0f64;
        for row in (0..x.len()).filter(|&row| rises[row]) {
            let before = x[row];
            if value[row] > 0.0 {
                high[row] = before;
            } else {
                low[row] = before;
            }
            let newton = before - value[row] / slope[row];
            let inside = newton > low[row] && newton < high[row];
            x[row] = if inside || newton == before { newton } else { 0.5 * (low[row] + high[row]) };
            moved = moved.max((x[row] - before).abs());
        }
        // Logarithms of inputs: the rounding of the largest is 1.4e-14.
        if moved <= 5e-14 {
            break;
        }
    }
    x.iter().zip(rises).map(|(&x, rises)| if rises { x } else { f64::NAN }).collect()
}
