//! The result columns: their names, their order, and how verdicts fill them. A new output column touches this file alone.
//!
//! In: the fits of a run, then verdicts batch by batch. Out: one value per curve and law for every column.

use super::Fit;
use crate::fit::Status;
use crate::fit::judge::Verdicts;
use crate::fit::lanes::{pair, triangle};
use crate::fit::pack::Plan;
use crate::statistics::bootstrap::{Bootstrap, Replicates, Spread};
use crate::statistics::selection::{Criterion, Ranking, Score};
use crate::statistics::student::Quantiles;
use crate::table::{BROKE, BROKE_ADJUSTED, FINGERPRINT, OutputKind, Values};
use std::sync::Arc;

/// What is written only where it is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras {
    /// `covariance`, behind the others: a list of f64, the lower triangle, row by row, of the covariance matrix of the
    /// law's parameters in the law's order; 0 for parameters that are fixed or pinned, null where it is not determined.
    pub covariance: bool,
    /// `<parameter>_lo` and `<parameter>_hi`, behind the standard errors: the interval of this level by Student's t, or
    /// between percentiles of the bootstrap.
    pub level: Option<f64>,
    /// What their ends are.
    pub intervals: Intervals,
    /// `<parameter>_boot_se` behind the intervals, and at the end `boot_fitted`, the replicates that were fitted, and
    /// `boot_at_bound`, how many of those have a parameter that is held by its box.
    pub resampling: Option<Resampling>,
    /// `best` and `evidence` at the end, and under holdout `holdout_rmse`.
    pub select: Option<Criterion>,
    /// `broke` and `broke_adjusted`: how well an earlier fit predicted a curve's new points.
    pub watch: bool,
    /// `fingerprint`, the last column: 64 bits that differ where a curve's rows do.
    pub fingerprint: bool,
}

/// What the ends of intervals are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Intervals {
    /// θ ± t·se; of a bootstrap, the percentiles of the level.
    #[default]
    Plain,
    /// θ·exp(±t·se/|θ|), on the logarithm of the parameter: the amplitude of a power law whose exponent is uncertain is
    /// distributed like a log-normal variable.
    Log,
    /// Of a bootstrap, percentiles further out: [`Replicates::spread`].
    Expanded,
}

impl Intervals {
    /// The end below (`sign` −1) or above (1) of a parameter, `half` being t·se.
    fn end(self, value: f64, half: f64, sign: f64) -> f64 {
        match self {
            Intervals::Plain | Intervals::Expanded => value + sign * half,
            Intervals::Log => value * (sign * half / value).exp(),
        }
    }
}

/// A bootstrap, and what it needs from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampling {
    pub bootstrap: Bootstrap,
    /// The column whose values are resampled whole.
    pub cluster: Option<String>,
    /// Where the replicates' parameters are written.
    pub draws: Option<String>,
}

/// What was found on a batch beyond the verdicts; one entry per law.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// Empty where nothing was resampled.
    pub replicates: Vec<Replicates>,
    /// Errors on the points held out; empty where none were.
    pub held_out: Vec<Vec<Score>>,
    pub ranking: Option<Ranking>,
    /// One per curve, where they are written.
    pub fingerprints: Option<Vec<u64>>,
}

/// The columns behind the keys.
#[derive(Debug)]
pub struct Columns {
    extras: Extras,
    announced: Vec<(String, OutputKind)>,
    parameters: Vec<Parameter>,
    laws: Vec<Arc<str>>,
    statuses: Vec<Arc<str>>,
    /// The names of each law's free parameters.
    free: Vec<Vec<Arc<str>>>,
    notes: Vec<String>,
}

/// A parameter column: where each law has it.
#[derive(Debug)]
struct Parameter {
    name: String,
    per_law: Vec<Option<Source>>,
}

/// Where a law's parameter comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Position among the free parameters.
    Free(usize),
    Fixed(f64),
}

/// The columns behind the parameters and their standard errors, in the order of the contract.
const STATISTICS: [(&str, OutputKind); 11] = [
    ("status", OutputKind::Text),
    ("points", OutputKind::Count),
    ("objective", OutputKind::Number),
    ("rmse", OutputKind::Number),
    ("r2", OutputKind::Number),
    ("aicc", OutputKind::Number),
    ("bic", OutputKind::Number),
    ("basins", OutputKind::Count),
    ("basin_gap", OutputKind::Number),
    ("condition", OutputKind::Number),
    ("at_bound", OutputKind::TextList),
];

impl Columns {
    /// Lays the columns out for the laws of a run.
    pub fn new(fits: &[Fit], extras: &Extras) -> Columns {
        let (parameters, notes) = union(fits);
        let number = |name: String| (name, OutputKind::Number);
        let mut announced = vec![("law".to_string(), OutputKind::Text)];
        announced.extend(parameters.iter().map(|parameter| number(parameter.name.clone())));
        announced.extend(parameters.iter().map(|parameter| number(format!("{}_se", parameter.name))));
        if extras.level.is_some() {
            let ends =
                parameters.iter().flat_map(|parameter| ["lo", "hi"].map(|end| format!("{}_{end}", parameter.name)));
            announced.extend(ends.map(number));
        }
        if extras.resampling.is_some() {
            announced.extend(parameters.iter().map(|parameter| number(format!("{}_boot_se", parameter.name))));
        }
        announced.extend(STATISTICS.map(|(name, kind)| (name.to_string(), kind)));
        if extras.covariance {
            announced.push(("covariance".to_string(), OutputKind::NumberList));
        }
        if extras.resampling.is_some() {
            announced.extend(["boot_fitted", "boot_at_bound"].map(|name| (name.to_string(), OutputKind::Count)));
        }
        if let Some(criterion) = extras.select {
            announced.push(("best".to_string(), OutputKind::Flag));
            announced.push(number("evidence".to_string()));
            if matches!(criterion, Criterion::Holdout { .. }) {
                announced.push(number("holdout_rmse".to_string()));
            }
        }
        if extras.watch {
            announced.extend([BROKE, BROKE_ADJUSTED].map(|name| number(name.to_string())));
        }
        if extras.fingerprint {
            announced.push((FINGERPRINT.to_string(), OutputKind::Fingerprint));
        }
        let free = |fit: &Fit| {
            let names = &fit.law().parameters;
            fit.plan.model.free.iter().map(|&j| Arc::from(names[j].as_str())).collect()
        };
        Columns {
            extras: extras.clone(),
            announced,
            parameters,
            laws: fits.iter().map(|fit| Arc::from(fit.law().name.as_str())).collect(),
            statuses: Status::ALL.iter().map(|status| Arc::from(status.name())).collect(),
            free: fits.iter().map(free).collect(),
            notes,
        }
    }

    /// Names and types, for the writer.
    pub fn announced(&self) -> &[(String, OutputKind)] {
        &self.announced
    }

    /// What the user should know about the names.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The columns of the standard errors of a law's free parameters.
    pub(super) fn error_columns(&self, law: usize) -> Vec<String> {
        let own = |parameter: &&Parameter| matches!(parameter.per_law[law], Some(Source::Free(_)));
        self.parameters.iter().filter(own).map(|parameter| format!("{}_se", parameter.name)).collect()
    }

    /// Names and types of the table of draws.
    pub fn announced_draws(&self) -> Vec<(String, OutputKind)> {
        let first = [("law", OutputKind::Text), ("replicate", OutputKind::Count)];
        let first = first.map(|(name, kind)| (name.to_string(), kind));
        let parameters = self.parameters.iter().map(|parameter| (parameter.name.clone(), OutputKind::Number));
        first.into_iter().chain(parameters).collect()
    }

    /// The draws of a batch. Rows run over curves, in a curve over laws, and in a law over replicates.
    pub fn fill_draws(&self, fits: &[Fit], draws: &[Replicates], replicates: usize) -> Vec<Values> {
        let laws = fits.len();
        let curves = draws[0].fitted.len();
        let rows = || (0..curves).flat_map(|_| (0..laws).flat_map(|law| (0..replicates).map(move |r| (law, r))));
        let mut values = vec![
            Values::Word { words: self.laws.clone(), which: rows().map(|(law, _)| law as u16).collect() },
            Values::Count(rows().map(|(_, replicate)| Some(replicate as u32)).collect()),
        ];
        for parameter in &self.parameters {
            let mut column = vec![f64::NAN; curves * laws * replicates];
            for (row, value) in column.iter_mut().enumerate() {
                let (curve, law, replicate) = (row / (laws * replicates), row / replicates % laws, row % replicates);
                let p = fits[law].plan.model.len();
                let own = &draws[law].draws[(curve * replicates + replicate) * p..][..p];
                match parameter.per_law[law] {
                    Some(Source::Free(j)) => *value = own[j],
                    Some(Source::Fixed(fixed)) if !own[0].is_nan() => *value = fixed,
                    _ => {}
                }
            }
            values.push(Values::Number(column));
        }
        values
    }

    /// The values of a batch; `verdicts` holds one entry per law. Rows run over curves, and in a curve over laws.
    pub(super) fn fill(&self, fits: &[Fit], verdicts: &[Verdicts], beyond: &Beyond) -> Vec<Values> {
        let laws = fits.len();
        let curves = verdicts[0].status.len();
        let rows = || (0..curves * laws).map(|row| (row / laws, row % laws, &verdicts[row % laws]));
        let number = |of: &dyn Fn(&Verdicts) -> &Vec<f64>| {
            let mut values = vec![f64::NAN; curves * laws];
            for (law, verdict) in verdicts.iter().enumerate() {
                for (value, found) in values[law..].iter_mut().step_by(laws).zip(of(verdict)) {
                    *value = *found;
                }
            }
            Values::Number(values)
        };
        let which = rows().map(|(_, law, _)| law as u16).collect();
        let mut values = vec![Values::Word { words: self.laws.clone(), which }];
        for parameter in &self.parameters {
            values.push(Values::Number(parameter.fill(fits, verdicts, |law| &verdicts[law].parameters, |fixed| fixed)));
        }
        for parameter in &self.parameters {
            values.push(Values::Number(parameter.fill(
                fits,
                verdicts,
                |law| &verdicts[law].standard_errors,
                |_| f64::NAN,
            )));
        }
        if let (Some(level), Some(resampling)) = (self.extras.level, &self.extras.resampling) {
            let expanded = self.extras.intervals == Intervals::Expanded;
            let spread = |of: &Replicates| of.spread(&resampling.bootstrap, level, expanded);
            let spreads: Vec<Spread> = beyond.replicates.iter().map(spread).collect();
            let fill = |parameter: &Parameter, of: &dyn Fn(&Spread) -> &Vec<f64>| {
                Values::Number(parameter.fill(fits, verdicts, |law| of(&spreads[law]), |_| f64::NAN))
            };
            for parameter in &self.parameters {
                values.push(fill(parameter, &|spread| &spread.low));
                values.push(fill(parameter, &|spread| &spread.high));
            }
            values.extend(self.parameters.iter().map(|parameter| fill(parameter, &|spread| &spread.error)));
        } else if let Some(level) = self.extras.level {
            let mut quantiles = Quantiles::new(level);
            for parameter in &self.parameters {
                let centre = parameter.fill(fits, verdicts, |law| &verdicts[law].parameters, |_| f64::NAN);
                let error = parameter.fill(fits, verdicts, |law| &verdicts[law].standard_errors, |_| f64::NAN);
                let half: Vec<f64> = rows()
                    .zip(&error)
                    .map(|((curve, law, v), error)| error * quantiles.two_sided(freedom(&fits[law].plan, v, curve)))
                    .collect();
                let end = |sign: f64| {
                    let ends = centre.iter().zip(&half).map(|(c, h)| self.extras.intervals.end(*c, *h, sign));
                    Values::Number(ends.collect())
                };
                values.extend([-1.0, 1.0].map(end));
            }
        }
        let which = rows().map(|(curve, _, v)| word(v.status[curve])).collect();
        values.push(Values::Word { words: self.statuses.clone(), which });
        values.push(Values::Count(rows().map(|(curve, _, v)| Some(v.points[curve])).collect()));
        values.push(number(&|v| &v.objective));
        values.push(number(&|v| &v.rmse));
        values.push(number(&|v| &v.r2));
        values.push(number(&|v| &v.aicc));
        values.push(number(&|v| &v.bic));
        values.push(Values::Count(rows().map(|(curve, _, v)| Some(v.basins[curve])).collect()));
        values.push(number(&|v| &v.basin_gap));
        values.push(number(&|v| &v.condition));
        values.push(Values::TextList(rows().map(|(curve, law, v)| self.pinned(law, v.pinned[curve])).collect()));
        if self.extras.covariance {
            values.push(Values::NumberList(
                rows().map(|(curve, law, v)| covariance(&fits[law].plan, v, curve)).collect(),
            ));
        }
        if self.extras.resampling.is_some() {
            let own = |law: usize| &beyond.replicates[law];
            values.push(Values::Count(rows().map(|(curve, law, _)| own(law).fitted[curve]).collect()));
            let pinned = |curve: usize, law: usize| own(law).fitted[curve].map(|_| own(law).pinned[curve]);
            values.push(Values::Count(rows().map(|(curve, law, _)| pinned(curve, law)).collect()));
        }
        if let Some(ranking) = &beyond.ranking {
            values.push(Values::Flag(ranking.best.clone()));
            values.push(Values::Number(ranking.evidence.clone()));
            if !beyond.held_out.is_empty() {
                values.push(Values::Number(rows().map(|(curve, law, _)| beyond.held_out[law][curve].value).collect()));
            }
        }
        if self.extras.watch {
            // Known where a curve had a fit before, and at the end of the run: see `watch`.
            values.extend([0, 1].map(|_| Values::Number(vec![f64::NAN; curves * laws])));
        }
        if let Some(prints) = &beyond.fingerprints {
            values.push(Values::Fingerprint(rows().map(|(curve, _, _)| prints[curve]).collect()));
        }
        values
    }

    fn pinned(&self, law: usize, bits: u64) -> Vec<Arc<str>> {
        if bits == 0 {
            return Vec::new();
        }
        let names = self.free[law].iter().enumerate();
        names.filter(|(j, _)| bits >> j & 1 == 1).map(|(_, name)| name.clone()).collect()
    }
}

/// The position of a status among all.
fn word(status: Status) -> u16 {
    Status::ALL.iter().position(|known| *known == status).expect("ALL lists every status") as u16
}

/// Degrees of freedom of one fit: points less parameters that are neither fixed nor pinned.
pub(crate) fn freedom(plan: &Plan, verdicts: &Verdicts, curve: usize) -> f64 {
    let estimated = plan.model.len() as f64 - f64::from(verdicts.pinned[curve].count_ones());
    f64::from(verdicts.points[curve]) - estimated
}

/// The lower triangle over all parameters of the law, fixed ones included; empty where it is not determined.
pub(crate) fn covariance(plan: &Plan, verdicts: &Verdicts, curve: usize) -> Vec<f64> {
    let (free, parameters) = (&plan.model.free, plan.law.parameters.len());
    let packed = &verdicts.covariance[curve * triangle(free.len())..][..triangle(free.len())];
    if packed.iter().any(|entry| !entry.is_finite()) {
        return Vec::new();
    }
    let mut all = vec![0.0; triangle(parameters)];
    for (i, &row) in free.iter().enumerate() {
        for (j, &column) in free[..=i].iter().enumerate() {
            all[pair(row, column)] = packed[pair(i, j)];
        }
    }
    all
}

impl Parameter {
    /// One value per curve and law: a free parameter's from what `free` gives for the law, a fixed one's from `fixed`, null
    /// without a fit.
    fn fill<'a>(
        &self,
        fits: &[Fit],
        verdicts: &[Verdicts],
        free: impl Fn(usize) -> &'a Vec<f64>,
        fixed: impl Fn(f64) -> f64,
    ) -> Vec<f64> {
        let laws = fits.len();
        let mut values = vec![f64::NAN; verdicts[0].status.len() * laws];
        for (law, verdict) in verdicts.iter().enumerate() {
            let Some(source) = self.per_law[law] else { continue };
            let parameters = fits[law].plan.model.len();
            let found = free(law);
            for (curve, status) in verdict.status.iter().enumerate() {
                if status.has_parameters() {
                    values[curve * laws + law] = match source {
                        Source::Free(j) => found[curve * parameters + j],
                        Source::Fixed(value) => fixed(value),
                    };
                }
            }
        }
        values
    }
}

/// Whether `parameter` is written as `<law>_<parameter>`: some law of the run has a name that differs from it in case only,
/// and DuckDB and others fold case.
fn clashes(laws: &[(&str, &[String])], parameter: &str) -> bool {
    let alike = |other: &String| other != parameter && other.to_lowercase() == parameter.to_lowercase();
    laws.iter().any(|(_, others)| others.iter().any(alike))
}

/// The column in which a parameter of the law called `name` is written; `laws` holds names and parameters of all laws of
/// the run. Where `<law>_<parameter>` still differs in case only from one that comes before it, its number stands behind it.
pub fn parameter_column(laws: &[(&str, &[String])], name: &str, parameter: &str) -> String {
    if !clashes(laws, parameter) {
        return parameter.to_string();
    }
    let column = format!("{name}_{parameter}");
    let renamed = laws.iter().flat_map(|(law, own)| {
        own.iter().filter(|other| clashes(laws, other)).map(move |other| format!("{law}_{other}"))
    });
    let mut alike: Vec<String> = Vec::new();
    for known in renamed.take_while(|known| *known != column) {
        if known.to_lowercase() == column.to_lowercase() && !alike.contains(&known) {
            alike.push(known);
        }
    }
    if alike.is_empty() { column } else { format!("{column}_{}", alike.len() + 1) }
}

/// The union of the laws' parameters in order of appearance.
fn union(fits: &[Fit]) -> (Vec<Parameter>, Vec<String>) {
    let laws: Vec<(&str, &[String])> =
        fits.iter().map(|fit| (fit.law().name.as_str(), fit.law().parameters.as_slice())).collect();
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut renamed: Vec<&str> = Vec::new();
    for (law, (name, own)) in laws.iter().enumerate() {
        for (j, parameter) in own.iter().enumerate() {
            if clashes(&laws, parameter) && !renamed.contains(&parameter.as_str()) {
                renamed.push(parameter);
            }
            let column = parameter_column(&laws, name, parameter);
            let at = parameters.iter().position(|known| known.name == column).unwrap_or_else(|| {
                parameters.push(Parameter { name: column, per_law: vec![None; fits.len()] });
                parameters.len() - 1
            });
            let model = &fits[law].plan.model;
            parameters[at].per_law[law] = Some(match fits[law].plan.fixed[j] {
                Some(value) => Source::Fixed(value),
                None => Source::Free(model.free.iter().position(|&free| free == j).expect("free where not fixed")),
            });
        }
    }
    let notes = if renamed.is_empty() {
        Vec::new()
    } else {
        vec![format!(
            "parameters {} differ only in case and are written as LAW_PARAMETER, with a number where that is not enough: \
             readers such as DuckDB fold case",
            renamed.join(", ")
        )]
    };
    (parameters, notes)
}
