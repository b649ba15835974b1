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
//! side, one column per unknown. Chinchilla's law at a cost k N D needs no search: N = G (C/k)^a and D = (C/k)^b/G with
//! G = (αA/βB)^(1/(α+β)), a = β/(α+β), b = α/(α+β) (Hoffmann et al. 2022, eq. 4).

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

/// The law that has a closed form, with parameters E, A, B, alpha, beta.
const CHINCHILLA: &str = "chinchilla";
/// Quantities with intervals, and which of them is log G.
const KINDS: usize = 7;
const SCALE: usize = 6;

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
    /// log k, where the law is Chinchilla's and the cost k times the product of its inputs.
    closed_form: Option<f64>,
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
    /// G of the closed form: the first input where the budget buys one unit of the product; NaN without a closed form.
    pub scale: Estimate,
    /// What following each rule adds to the left side.
    pub regret: Vec<f64>,
}

impl Allocator {
    /// Whether the optimum is known in closed form, and so G.
    pub fn has_closed_form(&self) -> bool {
        self.closed_form.is_some()
    }

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
        let is_product = [c_u, c_v].iter().all(|&slope| graph.constant_value(slope) == Some(1.0));
        let is_chinchilla = fitted.law.entry.is_some_and(|entry| entry.name == CHINCHILLA);
        let at_one = graph.evaluate(c, &[], &vec![0.0; parameters + 2]);
        Ok(Allocator {
            closed_form: (is_product && is_chinchilla).then_some(at_one),
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
                let units = self.units(budgets[i]);
                let point = [t, u[i], v[i], v[i] - u[i], slopes[0][i], slopes[1][i], u[i] - slopes[0][i] * units];
                let quantities = if fit.draws.is_empty() {
                    let quantile = quantiles.two_sided(fit.freedom);
                    let half = |kind: usize| {
                        let own = |j: usize, kind: usize| slopes[2 + 6 * j + kind][i];
                        let slope = |j: usize| match kind {
                            SCALE => own(j, 1) - own(j, 4) * units,
                            kind => own(j, kind),
                        };
                        let variance = fit.covariance.as_ref().map(|c| variance(c, slope, p));
                        quantile * variance.unwrap_or(f64::NAN).sqrt()
                    };
                    std::array::from_fn(|kind| [point[kind], point[kind] - half(kind), point[kind] + half(kind)])
                } else {
                    self.drawn(point, &fit.draws, budgets[i], level)
                };
                self.allocation(quantities, regret)
            })
            .collect()
    }

    /// log C/k: how many units of the product of both inputs the budget buys; NaN without a closed form.
    fn units(&self, budget: f64) -> f64 {
        budget.ln() - self.closed_form.unwrap_or(f64::NAN)
    }

    /// t, u, v, v − u, the exponents and log G with their ends, as the user counts them.
    fn allocation(&self, [t, u, v, ratio, a, b, scale]: [Estimate; KINDS], regret: Vec<f64>) -> Allocation {
        let exp = |estimate: Estimate| estimate.map(f64::exp);
        let predicted = if self.space == Space::Log { exp(t) } else { t };
        let (inputs, ratio, scale) = ([exp(u), exp(v)], exp(ratio), exp(scale));
        Allocation { inputs, predicted, ratio, exponents: [a, b], scale, regret }
    }

    fn drawn(&self, point: [f64; KINDS], draws: &[f64], budget: f64, level: f64) -> [Estimate; KINDS] {
        let rows: Vec<&[f64]> = draws.chunks_exact(self.parameters).collect();
        let theta = columns(self.parameters, rows.len(), |i| rows[i]);
        let (u, v, f) = self.solve(&theta, &vec![budget; rows.len()]);
        let mut all = theta;
        all.extend([u.clone(), v.clone()]);
        let slopes = run(&self.slopes, &all);
        let t = if self.space == Space::Log { f.iter().map(|f| f.ln()).collect() } else { f };
        let ratio = u.iter().zip(&v).map(|(u, v)| v - u).collect();
        let units = self.units(budget);
        let scale = u.iter().zip(&slopes[0]).map(|(u, exponent)| u - exponent * units).collect();
        let kinds = [t, u, v, ratio, slopes[0].clone(), slopes[1].clone(), scale];
        let mut quantities = [[f64::NAN; 3]; KINDS];
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
        if self.closed_form.is_some() {
            let u: Vec<f64> = (0..rows).map(|row| self.solved(theta, row, budgets[row])).collect();
            let (v, mut values) = self.along(theta, &u, &goal);
            return (u, v, values.swap_remove(0));
        }
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

    /// u of the closed form; NaN where a term rises with its input, so that there is no lowest point.
    fn solved(&self, theta: &[Vec<f64>], row: usize, budget: f64) -> f64 {
        let [a, b, alpha, beta] = std::array::from_fn(|j| theta[j + 1][row]);
        match a > 0.0 && b > 0.0 && alpha > 0.0 && beta > 0.0 {
            true => ((alpha * a / (beta * b)).ln() + beta * self.units(budget)) / (alpha + beta),
            false => f64::NAN,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Law, Mapping};

    /// Regret is a difference of losses of about 2: rounding leaves some 1e-15 of it.
    const REGRET: f64 = 1e-9;

    fn fitted(text: &str) -> FittedLaw {
        let columns = ["N", "D", "y"].map(String::from);
        let law = Law::bind(text, &columns, Mapping { x: &columns[..2], y: Some("y") }).expect(text);
        FittedLaw { columns: law.parameters.clone(), inputs: vec![0, 1], law, controls: Vec::new() }
    }

    fn fit(parameters: Vec<f64>) -> Fitted {
        let covariance = (0..parameters.len()).flat_map(|i| (0..=i).map(move |j| (i, j)));
        let covariance = covariance.map(|(i, j)| if i == j { 1e-6 * parameters[i] * parameters[i] } else { 0.0 });
        Fitted {
            law: 0,
            covariance: Some(covariance.collect()),
            freedom: 50.0,
            noise: 1e-4,
            evidence: f64::NAN,
            draws: Vec::new(),
            parameters,
        }
    }

    /// The least loss along the constraint by golden sections over the logarithm of N, the other input by bisection.
    fn brute_force(law: &FittedLaw, theta: &[f64], cost: &dyn Fn(f64, f64) -> f64, budget: f64) -> [f64; 3] {
        let tokens = |n: f64| {
            let (mut low, mut high) = (LOWEST, HIGHEST);
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if cost(n, middle.exp()) > budget { high = middle } else { low = middle }
            }
            (0.5 * (low + high)).exp()
        };
        let loss = |u: f64| law.law.graph.evaluate(law.law.prediction, &[u.exp(), tokens(u.exp()), 0.0], theta);
        let (mut low, mut high) = (10f64.ln(), 1e16f64.ln());
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        for _ in 0..100 {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if loss(a) < loss(b) { high = b } else { low = a }
        }
        let u = 0.5 * (low + high);
        [u.exp(), tokens(u.exp()), loss(u)]
    }

    #[test]
    fn the_optimum_and_the_regret_are_those_of_brute_force() {
        let chinchilla = vec![1.8172180975, 477.825861, 2143.417347, 0.3473104980, 0.3671724323];
        type Cost<'a> = (&'a str, &'a dyn Fn(f64, f64) -> f64);
        let plain: Cost = ("6*N*D", &|n, d| 6.0 * n * d);
        let loaded: Cost = ("6*N*D + 3e8*N + 40*D", &|n, d| 6.0 * n * d + 3e8 * n + 40.0 * d);
        for (text, theta, (cost, by_hand)) in [
            ("chinchilla", chinchilla.clone(), plain),
            ("chinchilla", chinchilla, loaded),
            ("y ~ ((1e14/N)^(a/b) + 5e13/D)^b + 1.5", vec![0.076, 0.095], plain),
        ] {
            let law = fitted(text);
            let rules = ["D=20*N".to_string(), "N=7e10".to_string(), "N=D/100".to_string()];
            let allocator = Allocator::new(&law, Space::Log, cost, &rules).expect(text);
            for budget in [1e20, 5.76e23, 1e26] {
                let found = &allocator.allocate(&[&fit(theta.clone())], &[budget], 0.95)[0];
                let [n, _, loss] = brute_force(&law, &theta, by_hand, budget);
                assert!((found.predicted[0] - loss).abs() < REGRET, "{text} {cost} {budget}: {found:?}, {loss}");
                // A minimum is flat: golden sections find its place to the root of the rounding.
                assert!((found.inputs[0][0] / n - 1.0).abs() < 1e-5, "{text} {cost} {budget}: {found:?}, {n}");
                let spent = by_hand(found.inputs[0][0], found.inputs[1][0]);
                assert!((spent / budget - 1.0).abs() < 1e-11, "{text}: spends {spent} of {budget}");
                let place: [&dyn Fn(f64) -> [f64; 2]; 3] = [&|w| [w, 20.0 * w], &|w| [7e10, w], &|w| [w / 100.0, w]];
                for (rule, regret) in place.iter().zip(&found.regret) {
                    let (mut low, mut high) = (LOWEST, HIGHEST);
                    for _ in 0..200 {
                        let middle: f64 = 0.5 * (low + high);
                        let [n, d] = rule(middle.exp());
                        if by_hand(n, d) > budget { high = middle } else { low = middle }
                    }
                    let [n, d] = rule((0.5 * (low + high)).exp());
                    let expected = law.law.graph.evaluate(law.law.prediction, &[n, d, 0.0], &theta) - loss;
                    let reachable = (by_hand(n, d) / budget - 1.0).abs() < 1e-9;
                    let same = if reachable { (regret - expected).abs() < REGRET } else { regret.is_nan() };
                    assert!(same, "{text} {cost} {budget}: regret {regret}, by hand {expected}");
                }
            }
        }
    }

    #[test]
    fn intervals_and_exponents_follow_from_moving_parameters_and_budget() {
        let law = fitted("chinchilla");
        let theta = vec![1.8, 480.0, 2100.0, 0.35, 0.37];
        let allocator = Allocator::new(&law, Space::Log, "6*N*D + 3e8*N", &[]).expect("an allocator");
        let at = |theta: &[f64], budget: f64| {
            let found = &allocator.allocate(&[&fit(theta.to_vec())], &[budget], 0.95)[0];
            [found.predicted[0], found.inputs[0][0], found.inputs[1][0], found.ratio[0]].map(f64::ln)
        };
        let exponents = &allocator.allocate(&[&fit(theta.clone())], &[1e22], 0.95)[0].exponents;
        let difference =
            |up: [f64; 4], down: [f64; 4], by: f64| -> [f64; 4] { std::array::from_fn(|k| (up[k] - down[k]) / by) };
        let step = 1e-4f64;
        let by_budget = difference(at(&theta, 1e22 * step.exp()), at(&theta, 1e22 * (-step).exp()), 2.0 * step);
        for (exponent, k) in exponents.iter().zip([1, 2]) {
            assert!((exponent[0] - by_budget[k]).abs() < 1e-7, "{exponent:?}, by differences {}", by_budget[k]);
        }
        let mut variance = [0.0; 4];
        for j in 0..5 {
            let moved = |sign: f64| {
                let mut theta = theta.clone();
                theta[j] *= 1.0 + sign * step;
                at(&theta, 1e22)
            };
            let slope = difference(moved(1.0), moved(-1.0), 2.0 * step * theta[j]);
            (0..4).for_each(|k| variance[k] += 1e-6 * (theta[j] * slope[k]).powi(2));
        }
        let found = &allocator.allocate(&[&fit(theta)], &[1e22], 0.95)[0];
        let quantile = Quantiles::new(0.95).two_sided(50.0);
        for (k, estimate) in [found.predicted, found.inputs[0], found.inputs[1], found.ratio].iter().enumerate() {
            let half = (estimate[2] / estimate[0]).ln();
            let expected = quantile * variance[k].sqrt();
            assert!((half / expected - 1.0).abs() < 1e-5, "{k}: {half}, by differences {expected}");
        }
    }

    #[test]
    fn the_closed_form_is_what_the_search_finds() {
        // Typed, the same law is searched.
        let laws = ["chinchilla", "y ~ E + A*N^-alpha + B*D^-beta"].map(fitted);
        for cost in ["6*N*D", "D*N", "2.5*(N*D)*3"] {
            let [named, typed] =
                [0, 1].map(|k| Allocator::new(&laws[k], Space::Log, cost, &["D=20*N".into()]).expect(cost));
            assert!(named.has_closed_form() && !typed.has_closed_form(), "{cost}");
            for (theta, budget) in [
                (vec![1.8172180975, 477.825861, 2143.417347, 0.3473104980, 0.3671724323], 5.76e23),
                (vec![1.7, 400.0, 410.0, 0.34, 0.28], 1e19),
                (vec![0.1, 12.0, 9000.0, 0.15, 0.6], 3e27),
            ] {
                // In the order in which a typed formula names them.
                let of_typed = [0, 1, 3, 2, 4].map(|j| theta[j]).to_vec();
                let [one, other] = [(&named, theta.clone()), (&typed, of_typed)]
                    .map(|(allocator, theta)| allocator.allocate(&[&fit(theta)], &[budget], 0.95).remove(0));
                let all = |found: &Allocation| {
                    let estimates = [found.inputs[0], found.inputs[1], found.ratio, found.predicted];
                    [&estimates[..], &found.exponents].concat().concat()
                };
                for (a, b) in all(&one).into_iter().zip(all(&other)) {
                    assert!((a / b - 1.0).abs() < 1e-9, "{cost} {theta:?} {budget}: {one:?}, searched {other:?}");
                }
                assert!((one.regret[0] - other.regret[0]).abs() < REGRET && other.scale[0].is_nan());
                let [_, a, b, alpha, beta] = theta[..] else { panic!("five parameters") };
                let scale = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta));
                assert!((one.scale[0] / scale - 1.0).abs() < 1e-12, "G is {:?}, {scale}", one.scale);
                assert!(one.scale[1] < scale && scale < one.scale[2]);
            }
        }
        // Another cost than a product has none; a term that rises with its input leaves no lowest point.
        let loaded = Allocator::new(&laws[0], Space::Log, "6*N*D + 3e8*N", &[]).expect("a cost");
        assert!(!loaded.has_closed_form());
        let named = Allocator::new(&laws[0], Space::Log, "6*N*D", &[]).expect("a cost");
        for theta in [vec![1.8, -480.0, 2100.0, 0.3, 0.4], vec![9.8, -48.0, -21.0, 0.3, 0.4]] {
            assert!(named.allocate(&[&fit(theta)], &[1e23], 0.95)[0].predicted[0].is_nan());
        }
    }

    #[test]
    fn a_law_that_keeps_falling_has_no_optimum() {
        let law = fitted("y ~ A*N^-a + 0*D*A");
        let allocator = Allocator::new(&law, Space::Log, "6*N*D", &[]).expect("an allocator");
        let found = &allocator.allocate(&[&fit(vec![3.0, 0.5])], &[1e20], 0.95)[0];
        assert!(found.predicted[0].is_nan() && found.inputs[0][0].is_nan(), "{found:?}");
    }
}
