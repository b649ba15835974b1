//! Symmetries of a model: several spellings of one curve, and which of them is reported.
//!
//! The terms of `A1*exp(-k1*x) + A2*exp(-k2*x)` may change places; the width of a Gaussian may change its sign. A search finds
//! any of the twins. In: a model and the user's starting values. Out: exchanges and changes of sign that leave the
//! prediction as it is, each with the order or sign that is reported: that of the starting values, else ascending and
//! positive.

use super::model::Model;
use super::pack::Control;
use crate::law::role::Role;
use crate::random::Stream;

/// Curves that must agree before a change counts as a symmetry; random, so that a chance agreement is out of the question.
const DRAWS: u64 = 6;
/// Relative difference of two values that are equal but for rounding.
const EQUAL: f64 = 1e-10;
/// Exchanges tried at most; formulas of more than a dozen like parameters are left as they are found.
const MOST_CANDIDATES: usize = 20_000;

/// A change of coordinates that leaves the prediction as it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Symmetry {
    /// These pairs change places together; reported is the form in which the first pair ascends (or descends).
    Exchange { pairs: Vec<(usize, usize)>, ascending: bool },
    /// These coordinates change their sign together; reported is the form in which the first is positive (or negative).
    Reflection { coordinates: Vec<usize>, positive: bool },
}

impl Symmetry {
    /// Brings coordinates and the bits of `marked` into the form that is reported. Returns whether anything changed.
    fn apply(&self, z: &mut [f64], marked: &mut u64) -> bool {
        match self {
            Symmetry::Exchange { pairs, ascending } => {
                let (i, j) = pairs[0];
                let wrong = if *ascending { z[i] > z[j] } else { z[i] < z[j] };
                for &(i, j) in pairs.iter().filter(|_| wrong) {
                    z.swap(i, j);
                    let differs = (*marked >> i ^ *marked >> j) & 1;
                    *marked ^= differs << i | differs << j;
                }
                wrong
            }
            Symmetry::Reflection { coordinates, positive } => {
                let first = z[coordinates[0]];
                let wrong = if *positive { first < 0.0 } else { first > 0.0 };
                for &j in coordinates.iter().filter(|_| wrong) {
                    z[j] = -z[j];
                }
                wrong
            }
        }
    }
}

/// Brings a point, and the coordinates marked in `marked`, into the form that is reported.
pub fn canonical(symmetries: &[Symmetry], z: &mut [f64], marked: &mut u64) {
    // Exchanges of three terms are sorted by exchanges of two: a few rounds settle any order.
    for _ in 0..z.len() {
        let mut changed = false;
        for symmetry in symmetries {
            changed |= symmetry.apply(z, marked);
        }
        if !changed {
            return;
        }
    }
}

/// Finds the symmetries of `model` that no control of the user's breaks.
pub fn find(model: &Model, controls: &[Control]) -> Vec<Symmetry> {
    let searched: Vec<usize> = (0..model.len()).filter(|j| !model.amplitudes.contains(j)).collect();
    let untouched: Vec<bool> = controls
        .iter()
        .map(|control| control.lower.is_none() && control.upper.is_none() && control.grid.is_none())
        .collect();
    let mut found = Vec::new();
    let mut candidates = 0;
    exchanges(model, &searched, &untouched, 0, &mut Vec::new(), &mut candidates, &mut |pairs| {
        let mut image: Vec<usize> = (0..model.len()).collect();
        for &(i, j) in pairs {
            image.swap(i, j);
        }
        if leaves_prediction(model, |z| image.iter().map(|&j| z[j]).collect()) {
            // Of several searched pairs a location decides: breaks are told in the order in which they come.
            let mut pairs = pairs.to_vec();
            let located = |&(i, _): &(usize, usize)| matches!(model.roles[i], Role::Location(_));
            if let Some(first) = pairs.iter().position(located) {
                pairs.swap(0, first);
            }
            let (i, j) = pairs[0];
            let order = controls[i].starts.first().zip(controls[j].starts.first());
            let ascending = order.is_none_or(|(first, second)| first <= second);
            found.push(Symmetry::Exchange { pairs, ascending });
        }
    });
    for &j in searched.iter().filter(|&&j| untouched[j]) {
        let alone = [vec![j]];
        let with_one = (0..model.len()).filter(|&i| i != j && untouched[i]).map(|i| vec![j, i]);
        for coordinates in alone.into_iter().chain(with_one) {
            let reflected = |z: &[f64]| {
                let mut z = z.to_vec();
                for &j in &coordinates {
                    z[j] = -z[j];
                }
                z
            };
            if leaves_prediction(model, reflected) {
                let positive = controls[j].starts.first().is_none_or(|&start| start >= 0.0);
                found.push(Symmetry::Reflection { coordinates, positive });
            }
        }
    }
    found
}

/// Calls `visit` with every set of disjoint pairs of like coordinates that holds a pair of searched ones, which comes first.
fn exchanges(
    model: &Model,
    searched: &[usize],
    untouched: &[bool],
    next: usize,
    pairs: &mut Vec<(usize, usize)>,
    candidates: &mut usize,
    visit: &mut impl FnMut(&[(usize, usize)]),
) {
    // Searched coordinates first: their pair decides the order.
    let order: Vec<usize> =
        searched.iter().copied().chain((0..model.len()).filter(|j| !searched.contains(j))).collect();
    if *candidates >= MOST_CANDIDATES || pairs.is_empty() && next >= searched.len() {
        return;
    }
    let Some(&i) = order.get(next) else {
        *candidates += 1;
        visit(pairs);
        return;
    };
    exchanges(model, searched, untouched, next + 1, pairs, candidates, visit);
    let taken = |j: usize, pairs: &[(usize, usize)]| pairs.iter().any(|&(a, b)| a == j || b == j);
    if taken(i, pairs) || !untouched[i] {
        return;
    }
    for &j in &order[next + 1..] {
        let alike = model.coordinates[i] == model.coordinates[j]
            && model.amplitudes.contains(&i) == model.amplitudes.contains(&j);
        if alike && untouched[j] && !taken(j, pairs) {
            pairs.push((i, j));
            exchanges(model, searched, untouched, next + 1, pairs, candidates, visit);
            pairs.pop();
        }
    }
}

/// Whether the prediction is the same before and after `change`, at random points.
fn leaves_prediction(model: &Model, change: impl Fn(&[f64]) -> Vec<f64>) -> bool {
    let mut known = 0;
    for draw in 0..DRAWS {
        let mut stream = Stream::new(draw, 0);
        let mut draws = |count: usize| -> Vec<f64> { (0..count).map(|_| stream.uniform(0.3, 1.7)).collect() };
        let (inputs, z) = (draws(model.inputs.len()), draws(model.len()));
        let before = model.graph.evaluate(model.prediction, &inputs, &z);
        let after = model.graph.evaluate(model.prediction, &inputs, &change(&z));
        if before.is_finite() != after.is_finite()
            || before.is_finite() && (before - after).abs() > EQUAL * before.abs().max(after.abs())
        {
            return false;
        }
        known += usize::from(before.is_finite());
    }
    known > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Space;
    use crate::law::{Law, Mapping};

    /// The model of a formula and its symmetries, coordinates by name.
    fn symmetries(formula: &str, control: impl Fn(&str) -> Control) -> (Vec<String>, Vec<Symmetry>) {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind(formula, &columns, Mapping { x: &columns[..1], y: Some("y") }).expect(formula);
        let count = law.parameters.len();
        let model = Model::compile(&law, Space::Linear, &vec![None; count], &vec![false; count]);
        let controls: Vec<Control> = law.parameters.iter().map(|name| control(name)).collect();
        let found = find(&model, &controls);
        (law.parameters, found)
    }

    fn none(_: &str) -> Control {
        Control::default()
    }

    /// Brings values of the named parameters into the reported form.
    fn reported(formula: &str, control: impl Fn(&str) -> Control, values: &[(&str, f64)]) -> Vec<f64> {
        let (names, found) = symmetries(formula, control);
        let value = |name: &String| values.iter().find(|(own, _)| own == name).expect("a value for every parameter").1;
        let mut z: Vec<f64> = names.iter().map(value).collect();
        canonical(&found, &mut z, &mut 0);
        values.iter().map(|(name, _)| z[names.iter().position(|own| own == name).expect("as above")]).collect()
    }

    const TWO_TERMS: &str = "c + a*exp(-k*x) + b*exp(-l*x)";
    const SWAPPED: [(&str, f64); 5] = [("c", 1.0), ("a", 2.0), ("k", 0.9), ("b", 3.0), ("l", 0.1)];

    #[test]
    fn terms_that_may_change_places_ascend() {
        assert_eq!(reported(TWO_TERMS, none, &SWAPPED), [1.0, 3.0, 0.1, 2.0, 0.9]);
    }

    #[test]
    fn starting_values_decide_the_order() {
        let from = |name: &str| Control {
            starts: match name {
                "k" => vec![5.0],
                "l" => vec![2.0],
                _ => Vec::new(),
            },
            ..Control::default()
        };
        assert_eq!(reported(TWO_TERMS, from, &SWAPPED), [1.0, 2.0, 0.9, 3.0, 0.1]);
    }

    #[test]
    fn three_terms_are_sorted() {
        let values = [("a", 1.0), ("k", 0.9), ("b", 2.0), ("l", 0.5), ("c", 3.0), ("m", 0.1)];
        let formula = "a*exp(-k*x) + b*exp(-l*x) + c*exp(-m*x)";
        assert_eq!(reported(formula, none, &values), [3.0, 0.1, 2.0, 0.5, 1.0, 0.9]);
    }

    #[test]
    fn a_width_is_positive_and_takes_its_amplitude_along() {
        let values = [("a", -2.0), ("m", 3.0), ("s", -4.0)];
        assert_eq!(reported("a/s*exp(-((x - m)/s)^2)", none, &values), [2.0, 3.0, 4.0]);
        assert_eq!(reported("a*exp(-((x - m)/s)^2)", none, &values), [-2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_bound_on_one_twin_leaves_both_in_their_places() {
        let bound = |name: &str| Control { lower: (name == "k").then_some(0.5), ..Control::default() };
        assert_eq!(symmetries(TWO_TERMS, bound).1, []);
    }

    #[test]
    fn laws_without_twins_have_none() {
        for formula in ["c + a*x^-k", "c + a*exp(-k*x^l)", "a*(x/b)^-k*(1 + (x/b)^(1/d))^(-d*(l - k))"] {
            assert_eq!(symmetries(formula, none).1, [], "{formula}");
        }
    }

    #[test]
    fn marks_go_with_their_coordinates() {
        let (names, found) = symmetries(TWO_TERMS, none);
        let place = |name: &str| names.iter().position(|own| own == name).expect("a parameter");
        let mut z: Vec<f64> =
            names.iter().map(|n| SWAPPED.iter().find(|(own, _)| own == n).expect("a value").1).collect();
        let mut marked = 1 << place("k");
        canonical(&found, &mut z, &mut marked);
        assert_eq!(marked, 1 << place("l"));
    }
}
