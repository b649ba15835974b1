//! The table of built-in laws: to add a law, add an entry here.
//!
//! Each entry is a formula and what a reader needs to know about it; nothing else in the program names a law. Roles are
//! inferred from the formula ([`super::role`]) and given here only where the formula cannot show them.

use super::role::Role;

/// One built-in law.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    /// The right side in the formula language.
    pub formula: &'static str,
    /// Input names in the order of `--x`.
    pub inputs: &'static [&'static str],
    pub parameters: &'static [Parameter],
    /// What the law says, in one line.
    pub meaning: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

/// One parameter of a built-in law.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub meaning: &'static str,
    /// The role, where it cannot be inferred from the formula.
    pub role: Option<fn(inputs: &[crate::formula::graph::Id]) -> Role>,
}

const fn parameter(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, meaning, role: None }
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// Every built-in law.
pub static CATALOGUE: &[Entry] = &[
    Entry {
        name: "power",
        formula: "a*x^p",
        inputs: &["x"],
        parameters: &[parameter("a", "value at x = 1"), parameter("p", "exponent, of either sign")],
        meaning: "a straight line on log-log axes",
        source: "Hestness et al. 2017 (arXiv:1712.00409); Kaplan et al. 2020 (arXiv:2001.08361)",
    },
    Entry {
        name: "saturating_power",
        formula: "E + A*x^-alpha",
        inputs: &["x"],
        parameters: &[
            parameter("E", "irreducible floor"),
            parameter("A", "reducible part at x = 1"),
            parameter("alpha", "exponent of the decay"),
        ],
        meaning: "a power law over an irreducible floor (pow3)",
        source: "Henighan et al. 2020 (arXiv:2010.14701)",
    },
    Entry {
        name: "broken_power",
        formula: "A*(x/x_b)^-alpha * (1 + (x/x_b)^(1/Delta))^(-Delta*(eta - alpha))",
        inputs: &["x"],
        parameters: &[
            parameter("A", "value of the lower branch at the break"),
            parameter("x_b", "where the slope changes"),
            parameter("alpha", "exponent below the break"),
            parameter("eta", "exponent above the break"),
            parameter("Delta", "width of the change in log x; small is sharp"),
        ],
        meaning: "slope alpha below the break x_b, eta above it",
        source: "smoothly broken power law; Caballero et al. 2022 (arXiv:2210.14891)",
    },
    Entry {
        name: "logarithmic",
        formula: "a + b*log(x)",
        inputs: &["x"],
        parameters: &[parameter("a", "value at x = 1"), parameter("b", "change for each factor e of x")],
        meaning: "the same gain for every factor of x: no plateau, not a power law",
        source: "elementary",
    },
    Entry {
        name: "exponential",
        formula: "y0*exp(-gamma*x)",
        inputs: &["x"],
        parameters: &[parameter("y0", "value at x = 0"), parameter("gamma", "rate of decay per unit of x")],
        meaning: "the data pruning profile",
        source: "Sorscher et al. 2022 (arXiv:2206.14486)",
    },
    Entry {
        name: "saturating_exponential",
        formula: "E + A*exp(-gamma*x)",
        inputs: &["x"],
        parameters: &[
            parameter("E", "floor"),
            parameter("A", "reducible part at x = 0"),
            parameter("gamma", "rate of decay per unit of x"),
        ],
        meaning: "an exponential over a floor (exp3)",
        source: "Mohr et al. 2022 (LCDB)",
    },
    Entry {
        name: "chinchilla",
        formula: "E + A*N^-alpha + B*D^-beta",
        inputs: &["N", "D"],
        parameters: &[
            parameter("E", "irreducible loss"),
            parameter("A", "loss of finite size at N = 1"),
            parameter("B", "loss of finite data at D = 1"),
            parameter("alpha", "exponent in parameters"),
            parameter("beta", "exponent in data"),
        ],
        meaning: "loss against parameters N and tokens D; the residual terms tell which resource binds",
        source: "Hoffmann et al. 2022 (arXiv:2203.15556)",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Law, Mapping};

    #[test]
    fn every_entry_binds_and_lists_exactly_its_parameters() {
        for entry in CATALOGUE {
            let mut columns: Vec<String> = entry.inputs.iter().map(|input| format!("column_{input}")).collect();
            let x = columns.clone();
            columns.push("y".into());
            let law = Law::bind(entry.name, &columns, Mapping { x: &x, y: Some("y") }).expect(entry.name);
            assert_eq!(law.parameters.len(), entry.parameters.len(), "{}: a parameter is not listed", entry.name);
            for j in 0..law.parameters.len() {
                assert!(law.graph.uses(law.prediction, j), "{}: {} is not used", entry.name, law.parameters[j]);
            }
            assert_eq!(law.inputs().len(), entry.inputs.len(), "{}: an input is not used", entry.name);
        }
    }
}
