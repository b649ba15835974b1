//! Which law predicts best beyond the data: every catalogue law, the tournament's choice and the laws' average on the published
//! curves, and the table of datasets/extrapolation.md, printed with `--nocapture`.

use crate::support::{Folder, Table, made, shared};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use sweepfit::law::catalogue::CATALOGUE;

const KEYS: [&str; 3] = ["domain", "task", "model"];
/// How the paper calls its domains, and the ranges of its estimators M1 to M4 over the curves of each.
const PUBLISHED: [(&str, &str, [&str; 4]); 3] = [
    ("NMT", "translation", ["0.17–0.26", "0.013–0.056", "0.016–0.089", "0.010–0.030"]),
    ("LM", "language modelling", ["0.015–0.023", "0.0006–0.0019", "–", "0.0003–0.0019"]),
    ("BB", "BIG-Bench", ["–", "0.0044–0.032", "–", "0.0023–0.018"]),
];
/// The paper's M3; its M1 is `power` and its M2 `saturating_power`.
const M3: &str = "M3 = loss ~ b*(1/seen_examples + g)^c";
const CRITERIA: [&str; 3] = ["aicc", "bic", "holdout"];

/// Root of the mean squared log error of every law on every curve's held-out points, by curve and law; `choice` is the
/// tournament's, `average` the laws' by their evidence.
struct Errors {
    curves: Vec<String>,
    by: HashMap<(String, String), f64>,
}

impl Errors {
    /// Fits `laws` to the training points, predicts the others, and compares.
    fn of(folder: &Folder, laws: &[&str]) -> Errors {
        let data = shared("extrapolation.parquet");
        let keys = KEYS.join(",");
        let only = ["--by", &keys, "--where", "is_train == 1", "--covariance", "-q"];
        let fits = made(folder, "fits.parquet", &[&["fit", &data], laws, &only].concat());
        let all = Table::read(Path::new(&data));
        let held: Vec<usize> = (0..all.rows).filter(|&row| all.numbers("is_train")[row] == 0.0).collect();
        all.take(&held).write(&folder.path("held.parquet"), held.len());
        let (fits_path, held_path) = (folder.file("fits.parquet"), folder.file("held.parquet"));
        let predicted = made(folder, "predicted.parquet", &["predict", &fits_path, "--at", &held_path, "-q"]);
        let mut sums: HashMap<(String, String), (f64, f64)> = HashMap::new();
        let mut curves = Vec::new();
        for (row, curve) in predicted.keys(&KEYS).into_iter().enumerate() {
            let error = (predicted.numbers("predicted")[row] / predicted.numbers("observed")[row]).ln();
            let sum = sums.entry((curve.clone(), predicted.texts("law")[row].clone())).or_default();
            *sum = (sum.0 + error * error, sum.1 + 1.0);
            curves.push(curve);
        }
        curves.dedup();
        let mut by: HashMap<(String, String), f64> =
            sums.into_iter().map(|(key, (sum, count))| (key, (sum / count).sqrt())).collect();
        if fits.names.contains(&"best".to_string()) {
            for (row, curve) in
                fits.keys(&KEYS).into_iter().enumerate().filter(|(row, _)| fits.texts("best")[*row] == "true")
            {
                let own = by[&(curve.clone(), fits.texts("law")[row].clone())];
                by.insert((curve, "choice".into()), own);
            }
        }
        Errors { curves, by }
    }

    fn at(&self, curve: &str, law: &str) -> f64 {
        self.by.get(&(curve.to_string(), law.to_string())).copied().unwrap_or(f64::NAN)
    }

    /// Mean over the curves of a domain, or of all; NaN where the law has no fit to one of them.
    fn mean(&self, law: &str, domain: &str) -> f64 {
        let own: Vec<f64> =
            self.curves.iter().filter(|curve| curve.starts_with(domain)).map(|curve| self.at(curve, law)).collect();
        own.iter().sum::<f64>() / own.len() as f64
    }
}

fn cell(value: f64) -> String {
    if value.is_nan() { "–".into() } else { format!("{value:.4}") }
}

#[test]
#[cfg_attr(not(shared_data), ignore = "needs ../shared/data")]
fn a_chosen_law_extrapolates_no_worse_than_one_for_all() {
    let folder = Folder::new();
    let every = ["--law", "all", "--x", "seen_examples", "--y", "loss", "--select"];
    let mut errors = CRITERIA.map(|criterion| Errors::of(&folder, &[&every[..], &[criterion]].concat()));
    // It takes no part in the tournament, which is the catalogue's.
    errors[1].by.extend(Errors::of(&folder, &["--law", M3]).by);
    let bic = &errors[1];
    assert_eq!(bic.curves.len(), 20);
    let laws: Vec<&str> =
        CATALOGUE.iter().filter(|entry| entry.inputs.len() == 1).map(|entry| entry.name).chain(["M3"]).collect();

    let mut text = String::from("\n| domain |");
    let columns = ["power", "saturating_power", "M3"];
    columns.iter().for_each(|law| text += &format!(" `{law}` |"));
    CRITERIA.iter().for_each(|criterion| text += &format!(" {criterion}'s choice | its average |"));
    text += &format!(" published M1 | M2 | M3 | M4 |\n{}|\n", "|---".repeat(14));
    for (domain, name, published) in PUBLISHED.iter().chain(&[("", "all", ["", "", "", ""])]) {
        let _ = write!(text, "| {name} |");
        columns.iter().for_each(|law| text += &format!(" {} |", cell(bic.mean(law, domain))));
        for errors in &errors {
            text += &format!(" {} | {} |", cell(errors.mean("choice", domain)), cell(errors.mean("average", domain)));
        }
        text += &format!(" {} |\n", published.join(" | "));
    }
    for (domain, name, _) in PUBLISHED {
        let curves: Vec<&String> = bic.curves.iter().filter(|curve| curve.starts_with(domain)).collect();
        let short = |curve: &str| {
            let parts: Vec<&str> = curve.split('|').collect();
            // What tells the curves of a domain apart.
            if domain == "BB" { parts[1] } else { parts[2] }.replace(['(', ')', '\''], "")
        };
        let heads: Vec<String> = curves.iter().map(|curve| short(curve)).collect();
        let _ = write!(text, "\n| {name} | {} |\n{}|\n", heads.join(" | "), "|---".repeat(curves.len() + 1));
        for law in laws.iter().chain(&["choice", "average"]) {
            let cells: Vec<String> = curves.iter().map(|curve| cell(bic.at(curve, law))).collect();
            let _ = writeln!(text, "| {} | {} |", law.replace('_', " "), cells.join(" | "));
        }
    }
    println!("{text}");

    for (errors, criterion) in errors.iter().zip(CRITERIA) {
        let always = bic.mean("saturating_power", "");
        for what in ["choice", "average"] {
            let own = errors.mean(what, "");
            // Not written as `>`: NaN fails.
            assert!(own <= always, "{criterion}'s {what}: {own}, always saturating_power {always}");
        }
    }
    // The upper ends of the published columns' ranges: the curve that each of them does worst on.
    for (domain, worst) in [("NMT", 0.030), ("LM", 0.0019), ("BB", 0.018)] {
        for what in ["choice", "average"] {
            assert!(bic.mean(what, domain) < worst, "{domain}: {what} {}", bic.mean(what, domain));
        }
    }
}
