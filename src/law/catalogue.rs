//! The table of built-in laws: to add a law, add an entry here.
//!
//! Each entry is a formula and what a reader needs to know about it; nothing else in the program names a law. Roles are
//! inferred from the formula ([`super::role`]) and given here only where the formula cannot show them. Laws that are one
//! curve in several spellings are one *family*: all but one of them are an [`Alias`] of that one, in whose parameters
//! they are searched.

use super::role::Role;
use crate::formula::graph::Id;

/// One built-in law.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    /// The right side in the formula language.
    pub formula: &'static str,
    /// Input names in the order of `--x`.
    pub inputs: &'static [&'static str],
    /// Every input has to be larger than this.
    pub above: f64,
    pub parameters: &'static [Parameter],
    /// What the law says, in one line.
    pub meaning: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// In whose parameters it is searched, where not in its own.
    pub alias: Option<Alias>,
}

/// One parameter of a built-in law.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub meaning: &'static str,
    /// The role over the law's inputs, where it cannot be inferred from the formula.
    pub role: Option<fn(inputs: &[Id]) -> Role>,
}

/// Another spelling of the same curve.
#[derive(Debug)]
pub struct Alias {
    /// The entry of the same inputs whose parameters are searched: one of [`CATALOGUE`] or of [`SEARCHED_FORMS`].
    pub of: &'static str,
    /// The law's own parameters, in order, as formulas of that entry's parameters.
    pub parameters: &'static [&'static str],
}

impl Entry {
    /// The entry in whose parameters this law is searched, where that is another one.
    pub fn representative(&self) -> Option<&'static Entry> {
        let alias = self.alias.as_ref()?;
        let mut known = CATALOGUE.iter().chain(SEARCHED_FORMS);
        Some(known.find(|entry| entry.name == alias.of).expect("a test looks up every alias"))
    }

    /// The name under which a comparison of laws counts this one: that of the family's catalogue law, or its own.
    pub fn family(&self) -> &'static str {
        match &self.alias {
            Some(alias) if find(alias.of).is_some() => alias.of,
            _ => self.name,
        }
    }

    /// The other catalogue laws that are the same curve.
    pub fn relatives(&self) -> impl Iterator<Item = &'static Entry> {
        CATALOGUE.iter().filter(|other| other.family() == self.family() && other.name != self.name)
    }
}

const fn parameter(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, meaning, role: None }
}

const fn with_role(name: &'static str, meaning: &'static str, role: fn(inputs: &[Id]) -> Role) -> Parameter {
    Parameter { name, meaning, role: Some(role) }
}

/// What most entries have in common.
const PLAIN: Entry =
    Entry { name: "", formula: "", inputs: &["x"], above: 0.0, parameters: &[], meaning: "", source: "", alias: None };

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// Every built-in law.
pub static CATALOGUE: &[Entry] = &[
    Entry {
        name: "power",
        formula: "a*x^p",
        parameters: &[parameter("a", "value at x = 1"), parameter("p", "exponent, of either sign")],
        meaning: "a straight line on log-log axes",
        source: "Hestness et al. 2017 (arXiv:1712.00409); Kaplan et al. 2020 (arXiv:2001.08361)",
        ..PLAIN
    },
    Entry {
        name: "saturating_power",
        formula: "E + A*x^-alpha",
        parameters: &[
            parameter("E", "irreducible floor"),
            parameter("A", "reducible part at x = 1"),
            parameter("alpha", "exponent of the decay"),
        ],
        meaning: "a power law over an irreducible floor (pow3)",
        source: "Henighan et al. 2020 (arXiv:2010.14701)",
        ..PLAIN
    },
    Entry {
        name: "shifted_power",
        formula: "A*(x + s)^-alpha",
        parameters: &[
            parameter("A", "value at x + s = 1"),
            parameter("s", "shift of x: what came before the first measurement, or how late the decay sets in"),
            parameter("alpha", "exponent of the decay"),
        ],
        meaning: "a power law in x + s: it bends at small x",
        source: "pow4 without its floor; Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "shifted_saturating_power",
        formula: "E + A*(x + s)^-alpha",
        parameters: &[
            parameter("E", "irreducible floor"),
            parameter("A", "reducible part at x + s = 1"),
            parameter("s", "shift of x"),
            parameter("alpha", "exponent of the decay"),
        ],
        meaning: "a power law in x + s over a floor (pow4)",
        source: "Domhan et al. 2015 (IJCAI); Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "broken_power",
        formula: "A*(x/x_b)^-alpha * (1 + (x/x_b)^(1/Delta))^(-Delta*(eta - alpha))",
        parameters: &[
            parameter("A", "value of the lower branch at the break"),
            parameter("x_b", "where the slope changes"),
            parameter("alpha", "exponent below the break"),
            parameter("eta", "exponent above the break"),
            parameter("Delta", "width of the change in log x; small is sharp"),
        ],
        meaning: "slope alpha below the break x_b, eta above it",
        source: "smoothly broken power law; Caballero et al. 2022 (arXiv:2210.14891)",
        ..PLAIN
    },
    Entry {
        name: "broken_saturating_power",
        formula: "E + A*(x/x_b)^-alpha * (1 + (x/x_b)^(1/Delta))^(-Delta*(eta - alpha))",
        parameters: &[
            parameter("E", "irreducible floor"),
            parameter("A", "reducible part of the lower branch at the break"),
            parameter("x_b", "where the slope changes"),
            parameter("alpha", "exponent below the break"),
            with_role("eta", "exponent above the break", |_| Role::SteepDecay),
            parameter("Delta", "width of the change in log x; small is sharp"),
        ],
        meaning: "a broken power law over a floor",
        source: "Caballero et al. 2022 (arXiv:2210.14891)",
        ..PLAIN
    },
    Entry {
        name: "bnsl1",
        formula: "a + b*x^-c0 * (1 + (x/d1)^(1/f1))^(-c1*f1)",
        parameters: &[
            parameter("a", "floor"),
            parameter("b", "reducible part at x = 1, had it not broken"),
            parameter("c0", "exponent below the break"),
            parameter("c1", "what the break adds to the exponent"),
            parameter("d1", "where the slope changes"),
            parameter("f1", "width of the change in log x; small is sharp"),
        ],
        meaning: "broken neural scaling law with one break",
        source: "Caballero et al. 2022 (arXiv:2210.14891)",
        alias: Some(Alias {
            of: "broken_saturating_power",
            parameters: &["E", "A*x_b^alpha", "alpha", "eta - alpha", "x_b", "Delta"],
        }),
        ..PLAIN
    },
    Entry {
        name: "bnsl2",
        formula: "a + b*x^-c0 * (1 + (x/d1)^(1/f1))^(-c1*f1) * (1 + (x/d2)^(1/f2))^(-c2*f2)",
        parameters: &[
            parameter("a", "floor"),
            parameter("b", "reducible part at x = 1, had it not broken"),
            parameter("c0", "exponent below the first break"),
            parameter("c1", "what the first break adds to the exponent"),
            parameter("d1", "where the slope changes first; d1 < d2"),
            parameter("f1", "width of the first change in log x"),
            parameter("c2", "what the second break adds to the exponent"),
            parameter("d2", "where the slope changes again"),
            parameter("f2", "width of the second change in log x"),
        ],
        meaning: "broken neural scaling law with two breaks",
        source: "Caballero et al. 2022 (arXiv:2210.14891)",
        ..PLAIN
    },
    Entry {
        name: "logarithmic",
        formula: "a + b*log(x)",
        parameters: &[parameter("a", "value at x = 1"), parameter("b", "change for each factor e of x")],
        meaning: "the same gain for every factor of x: no plateau, not a power law",
        source: "elementary",
        ..PLAIN
    },
    Entry {
        name: "exponential",
        formula: "y0*exp(-gamma*x)",
        above: f64::NEG_INFINITY,
        parameters: &[parameter("y0", "value at x = 0"), parameter("gamma", "rate of decay per unit of x")],
        meaning: "the data pruning profile",
        source: "Sorscher et al. 2022 (arXiv:2206.14486)",
        ..PLAIN
    },
    Entry {
        name: "saturating_exponential",
        formula: "E + A*exp(-gamma*x)",
        above: f64::NEG_INFINITY,
        parameters: &[
            parameter("E", "floor"),
            parameter("A", "reducible part at x = 0"),
            parameter("gamma", "rate of decay per unit of x"),
        ],
        meaning: "an exponential over a floor (exp3)",
        source: "Mohr et al. 2022 (LCDB)",
        ..PLAIN
    },
    Entry {
        name: "stretched_exponential",
        formula: "E + A*exp(-gamma*x^beta)",
        parameters: &[
            parameter("E", "floor"),
            parameter("A", "reducible part at x = 0"),
            parameter("gamma", "rate of decay per unit of x^beta"),
            parameter("beta", "stretching exponent; 1 is the plain exponential"),
        ],
        meaning: "an exponential in a power of x over a floor (exp4)",
        source: "Kohlrausch 1854; Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "mmf",
        formula: "(a*b + c*x^d)/(b + x^d)",
        parameters: &[
            parameter("a", "value at x = 0"),
            parameter("b", "x^d halfway"),
            parameter("c", "value at infinite x"),
            parameter("d", "steepness in log x"),
        ],
        meaning: "Morgan-Mercer-Flodin growth curve (mmf4): the Hill curve in other parameters",
        source: "Morgan, Mercer and Flodin 1975; Viering and Loog 2022 (arXiv:2103.10948)",
        alias: Some(Alias { of: "hill", parameters: &["bottom", "x50^n", "top", "n"] }),
        ..PLAIN
    },
    Entry {
        name: "weibull",
        formula: "c - b*exp(-a*x^d)",
        parameters: &[
            parameter("c", "value at infinite x"),
            parameter("b", "what is gained from x = 0 to infinity"),
            parameter("a", "rate per unit of x^d"),
            parameter("d", "exponent of x"),
        ],
        meaning: "Weibull growth curve (wbl4): the stretched exponential in other parameters",
        source: "Viering and Loog 2022 (arXiv:2103.10948)",
        alias: Some(Alias { of: "stretched_exponential", parameters: &["E", "-A", "gamma", "beta"] }),
        ..PLAIN
    },
    Entry {
        name: "janoschek",
        formula: "a - (a - b)*exp(-k*x^d)",
        parameters: &[
            parameter("a", "value at infinite x"),
            parameter("b", "value at x = 0"),
            parameter("k", "rate per unit of x^d"),
            parameter("d", "exponent of x"),
        ],
        meaning: "Janoschek growth curve: the stretched exponential in other parameters",
        source: "Janoschek 1957; Domhan et al. 2015 (IJCAI)",
        alias: Some(Alias { of: "stretched_exponential", parameters: &["E", "E + A", "gamma", "beta"] }),
        ..PLAIN
    },
    Entry {
        name: "log_power",
        formula: "a/(1 + (x/exp(b))^c)",
        parameters: &[
            parameter("a", "value at small x"),
            parameter("b", "log of x halfway"),
            parameter("c", "exponent of the decay at large x"),
        ],
        meaning: "a plateau, then a power law (logpower3)",
        source: "Domhan et al. 2015 (IJCAI); Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "hill",
        formula: "bottom + (top - bottom)/(1 + (x50/x)^n)",
        parameters: &[
            parameter("bottom", "value at small x"),
            parameter("top", "value at large x"),
            parameter("x50", "x halfway"),
            parameter("n", "steepness in log x"),
        ],
        meaning: "a sigmoid in log x: task accuracy against scale",
        source: "Hill 1910",
        ..PLAIN
    },
    Entry {
        name: "vapor_pressure",
        formula: "exp(a + b/x + c*log(x))",
        parameters: &[
            parameter("a", "log of the value at x = 1, less b"),
            parameter("b", "strength of the bend at small x"),
            parameter("c", "exponent at large x, of either sign"),
        ],
        meaning: "a power law that bends at small x (vap3)",
        source: "Domhan et al. 2015 (IJCAI); Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "inverse_log",
        formula: "a + b/log(x)",
        above: 1.0,
        parameters: &[parameter("a", "value at infinite x"), parameter("b", "distance from it at x = e")],
        meaning: "the slowest decay of the catalogue (ilog2)",
        source: "Kolachina et al. 2012 (ACL); Viering and Loog 2022 (arXiv:2103.10948)",
        ..PLAIN
    },
    Entry {
        name: "coverage",
        formula: "exp(-a*k^-b)",
        inputs: &["k"],
        parameters: &[
            with_role("a", "-log of the share solved by one sample", |_| Role::Free),
            parameter("b", "exponent of the decay"),
        ],
        meaning: "share of problems solved in k samples: inference-time scaling",
        source: "Brown et al. 2024 (arXiv:2407.21787)",
        ..PLAIN
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
        ..PLAIN
    },
    Entry {
        name: "kaplan",
        formula: "((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
        inputs: &["N", "D"],
        parameters: &[
            with_role("N_c", "parameters at which the loss of finite size is one", |inputs| Role::Unit(inputs[0], 2)),
            with_role("D_c", "tokens at which the loss of finite data is one", |inputs| Role::Unit(inputs[1], 3)),
            with_role("alpha_N", "exponent in parameters", |_| Role::Decay),
            with_role("alpha_D", "exponent in data", |_| Role::Decay),
        ],
        meaning: "loss against parameters N and tokens D without a floor",
        source: "Kaplan et al. 2020 (arXiv:2001.08361), eq. 1.5",
        alias: Some(Alias {
            of: "kaplan, searched",
            parameters: &["exp(((1 + r)*log(S) + m/alpha_D)/r)", "exp(m/alpha_D)", "r*alpha_D", "alpha_D"],
        }),
        ..PLAIN
    },
    Entry {
        name: "chinchilla_repeated",
        formula: "E + A*N^-alpha + B*(min(D,U) + U*R_D*(1 - exp(-max(D/U - 1, 0)/R_D)))^-beta",
        inputs: &["N", "D", "U"],
        parameters: &[
            parameter("E", "irreducible loss"),
            parameter("A", "loss of finite size at N = 1"),
            parameter("B", "loss of finite data at D = 1"),
            parameter("alpha", "exponent in parameters"),
            parameter("beta", "exponent in data"),
            parameter("R_D", "repetitions after which a token is worth 1/e of a fresh one"),
        ],
        meaning: "chinchilla with D tokens of which U are unique: repeating them pays less and less",
        source: "Muennighoff et al. 2023 (arXiv:2305.16264)",
        ..PLAIN
    },
    Entry {
        name: "routed",
        formula: "exp(a*log(N) + b*log(X) + c*log(N)*log(X) + d)",
        inputs: &["N", "X"],
        parameters: &[
            with_role("a", "exponent in parameters at X = 1", |_| Role::Free),
            with_role("b", "exponent in experts at N = 1", |_| Role::Free),
            with_role("c", "how size takes away from what experts give", |_| Role::Free),
            parameter("d", "log of the loss at N = X = 1"),
        ],
        meaning: "mixture of experts: loss against parameters N and (effective) experts X",
        source: "Clark et al. 2022 (arXiv:2202.01169)",
        ..PLAIN
    },
    Entry {
        name: "power2",
        formula: "c*N^a*D^b",
        inputs: &["N", "D"],
        parameters: &[
            parameter("c", "value at N = D = 1"),
            parameter("a", "exponent in N, of either sign"),
            parameter("b", "exponent in D, of either sign"),
        ],
        meaning: "the best hyperparameter against N and D",
        source: "step law; Li et al. 2025 (arXiv:2503.04715)",
        ..PLAIN
    },
];

/// Forms that are searched in place of a catalogue law and shown nowhere.
///
/// `kaplan`: with r = alpha_N/alpha_D the law is alpha_D (log D_c - log D + softplus(log Q + log D - r log N)) in log space,
/// Q = N_c^r/D_c: linear in alpha_D and m = alpha_D log D_c, so that two parameters are searched and not four. Q leaves the
/// range of numbers where r is large, as N_c/D_c^(1/r) does where it is small; S = Q^(1/(1 + r)) never does.
pub static SEARCHED_FORMS: &[Entry] = &[Entry {
    name: "kaplan, searched",
    formula: "exp(m) * D^-alpha_D * (1 + exp((1 + r)*log(S) + log(D) - r*log(N)))^alpha_D",
    inputs: &["N", "D"],
    parameters: &[
        parameter("m", "alpha_D log D_c"),
        parameter("alpha_D", "exponent in data"),
        with_role("S", "(N_c^r/D_c)^(1/(1 + r))", |inputs| Role::Crossing(inputs[0])),
        with_role("r", "alpha_N/alpha_D", |_| Role::Ratio),
    ],
    ..PLAIN
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Law, Mapping};

    #[test]
    fn every_entry_binds_and_lists_exactly_its_parameters() {
        for entry in CATALOGUE.iter().chain(SEARCHED_FORMS) {
            let law = bind(entry);
            assert_eq!(law.parameters.len(), entry.parameters.len(), "{}: a parameter is not listed", entry.name);
            for j in 0..law.parameters.len() {
                assert!(law.graph.uses(law.prediction, j), "{}: {} is not used", entry.name, law.parameters[j]);
            }
            assert_eq!(law.inputs().len(), entry.inputs.len(), "{}: an input is not used", entry.name);
        }
    }

    fn bind(entry: &'static Entry) -> Law {
        let mut columns: Vec<String> = entry.inputs.iter().map(|input| format!("column_{input}")).collect();
        let x = columns.clone();
        columns.push("y".into());
        Law::bind_entry(entry, &columns, Mapping { x: &x, y: Some("y") }).expect(entry.name)
    }

    #[test]
    fn names_are_told_apart() {
        for (i, entry) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..i].iter().all(|other| other.name != entry.name), "{} stands twice", entry.name);
            assert!(
                SEARCHED_FORMS.iter().all(|form| form.name != entry.name),
                "{} is a searched form, too",
                entry.name
            );
        }
    }

    #[test]
    fn an_alias_is_the_curve_that_it_says() {
        for entry in CATALOGUE.iter().filter(|entry| entry.alias.is_some()) {
            let law = bind(entry);
            let (searched, own) = law.representative().expect(entry.name);
            for draw in 0..20 {
                let mut stream = crate::random::Stream::new(1, draw);
                let theta: Vec<f64> = searched.parameters.iter().map(|_| stream.uniform(0.4, 1.8)).collect();
                let mut row: Vec<f64> = entry.inputs.iter().map(|_| stream.uniform(1.5, 40.0)).collect();
                row.push(f64::NAN);
                let spelled: Vec<f64> = own.iter().map(|&id| searched.graph.evaluate(id, &[], &theta)).collect();
                let (a, b) = (
                    law.graph.evaluate(law.prediction, &row, &spelled),
                    searched.graph.evaluate(searched.prediction, &row, &theta),
                );
                assert!((a / b - 1.0).abs() < 1e-12, "{}: {a}, {} says {b}", entry.name, searched.name);
            }
        }
    }

    #[test]
    fn a_family_has_one_name() {
        for family in [
            &["stretched_exponential", "weibull", "janoschek"][..],
            &["hill", "mmf"],
            &["broken_saturating_power", "bnsl1"],
        ] {
            for name in family {
                let entry = find(name).expect(name);
                assert_eq!(entry.family(), family[0], "{name}");
                assert_eq!(entry.relatives().count(), family.len() - 1, "{name}");
            }
        }
        assert_eq!(find("kaplan").expect("kaplan").family(), "kaplan");
    }
}
