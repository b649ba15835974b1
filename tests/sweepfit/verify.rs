//! `--verify K`: what brute force says about the fits of a run.

use crate::support::{Folder, Ran, SWEEP, SWEEP_FIT, Table, generated, run};
use serde_json::Value;
use std::path::Path;

/// The verification of a run's only law, from its metadata.
fn verification(table: &Table) -> Value {
    let all: Value = serde_json::from_str(&table.metadata["sweepfit.verification"]).expect("JSON");
    all[0].clone()
}

fn verified(folder: &Folder, input: &str, arguments: &[&str]) -> (Ran, Value) {
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", input, "-o", &out, "--strict"], arguments].concat());
    let found = verification(&Table::read(Path::new(&out)));
    (ran, found)
}

#[test]
fn fits_agree_with_brute_force_in_every_space_and_under_every_loss() {
    for space in ["log", "linear"] {
        for loss in ["squares", "huber:0.003"] {
            let folder = Folder::new();
            let summary = folder.file("summary.json");
            let flags = ["--space", space, "--loss", loss, "--verify", "12", "--summary", &summary];
            let (ran, found) = verified(&folder, SWEEP, &[&SWEEP_FIT[..], &flags].concat());
            assert_eq!(ran.code, 0, "{space} {loss}: {}", ran.stderr);
            assert_eq!(
                (&found["fits"], &found["run_found_better"]),
                (&12.into(), &0.into()),
                "{space} {loss}: {found}"
            );
            let worst = found["objective_excess"]["worst"].as_f64().expect("a number");
            assert!(worst.abs() < 1e-9, "{space} {loss}: {found}");
            assert!(found["parameters_in_standard_errors"]["worst"].as_f64().is_some_and(|off| off < 1e-3), "{found}");
            assert!(ran.stderr.contains("12 fits verified by dense search, 0 disagree"), "{}", ran.stderr);
            let text = std::fs::read_to_string(&summary).expect("the summary");
            let summary: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(summary["verification"][0], found);
        }
    }
}

#[test]
fn the_sample_depends_on_no_thread_and_holds_every_curve_where_there_are_fewer() {
    let folder = Folder::new();
    let fit = |k: &str, threads: &str| {
        verified(&folder, SWEEP, &[&SWEEP_FIT[..], &["--verify", k, "--threads", threads]].concat()).1
    };
    assert_eq!(fit("20", "1"), fit("20", "2"));
    assert_ne!(fit("20", "2")["parameters_relative"], fit("60", "2")["parameters_relative"]);
    let mut text = String::from("run,x,y\n");
    for run in 0..7 {
        for x in 1..9 {
            text +=
                &format!("{run},{x},{}\n", 2.0 + (3.0 + 0.1 * f64::from(run)) / f64::from(x) + 0.01 * f64::from(x % 3));
        }
    }
    let few = folder.text("few.csv", &text);
    let arguments = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "run", "--verify", "1000"];
    assert_eq!(verified(&folder, &few, &arguments).1["fits"], 7);
}

/// Two sines of frequencies 2 and 5, of which the slower one explains more.
fn two_minima(folder: &Folder) -> String {
    let mut text = String::from("run,x,y\n");
    for run in 0..3 {
        for i in 0..120 {
            let x = 0.1 * f64::from(i);
            let y = 3.0 + (2.0 + 0.01 * f64::from(run)) * (2.0 * x).sin() + 0.7 * (5.0 * x).sin();
            text += &format!("r{run},{x},{y}\n");
        }
    }
    folder.text("sines.csv", &text)
}

#[test]
fn a_search_in_the_wrong_basin_is_caught() {
    let folder = Folder::new();
    let sines = two_minima(&folder);
    let law = ["--law", "y ~ a + b*sin(w*x)", "--by", "run", "--space", "linear", "--verify", "3"];
    for hint in [&["--start", "w=5"][..], &["--grid", "w=4.9:5.1:3"]] {
        let (ran, found) = verified(&folder, &sines, &[&law[..], hint].concat());
        assert_eq!(ran.code, 1, "{hint:?}: {}", ran.stderr);
        let disagreements = found["disagreements"].as_array().expect("a list");
        assert_eq!(disagreements.len(), 3, "{hint:?}: {found}");
        for run in ["run=r0", "run=r1", "run=r2"] {
            let named = |found: &Value| found["curve"] == run;
            assert!(disagreements.iter().any(named), "{hint:?}: {run} is not in {found}");
            assert!(
                ran.stderr.contains(&format!("  {run}: brute force finds an objective lower by")),
                "{}",
                ran.stderr
            );
        }
        let strict = "error: --strict: y ~ a + b*sin(w*x): 3 of 3 fits verified by dense search disagree (first run=r";
        assert!(ran.stderr.contains(strict) && ran.stderr.contains("--grid P=LO:HI:CELLS"), "{}", ran.stderr);
        // Without --strict a disagreement is told and is no failure.
        let out = folder.file("lenient.parquet");
        let lenient = run(&[&["fit", &sines, "-o", &out], &law[..], hint].concat());
        assert_eq!(lenient.code, 0, "{}", lenient.stderr);
        assert!(lenient.stderr.contains("3 disagree"), "{}", lenient.stderr);
    }
}

/// Residuals of the logarithm of this size move the valleys of the proxy that is searched in log space.
#[test]
fn noisy_curves_end_in_the_lowest_valley_of_the_objective_itself() {
    for (law, noise) in [("saturating_power", 1.0), ("saturating_exponential", 0.3)] {
        let folder = Folder::new();
        let recipe = format!("--law {law} --curves 400 --points 12:60 --noise {noise} --seed 3");
        let sweep = generated(&folder, "noisy.parquet", &recipe);
        let flags = ["--law", law, "--x", "x", "--y", "y", "--by", "curve", "--backend", "cpu", "--verify", "400"];
        let (_, found) = verified(&folder, &sweep, &flags);
        assert_eq!((&found["fits"], &found["disagreements"]), (&400.into(), &Value::Array(Vec::new())), "{law}");
    }
}
