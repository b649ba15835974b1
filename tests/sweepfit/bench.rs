//! `sweepfit bench`: its numbers fit together, its workloads are reproducible, its mistakes are explained. No timing is judged.

use crate::support::{Folder, SWEEP, SWEEP_FIT, Table, command, relative, run};
use serde_json::Value;
use std::path::Path;

/// Quotients of numbers that were printed in full.
const ROUNDING: f64 = 1e-12;

fn bench(arguments: &[&str]) -> Value {
    let ran = run(&[&["bench", "--backend", "cpu", "--json", "-q"], arguments].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&ran.stdout).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn items(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

#[test]
fn parts_sum_to_at_most_the_whole_and_rates_are_curves_over_seconds() {
    let told =
        bench(&["--law", "power", "--law", "saturating_power", "--curves", "700", "--threads", "2,1", "--repeat", "2"]);
    assert!(
        ["AVX-512", "AVX2", "NEON", "baseline"].contains(&told["machine"]["instruction_set"].as_str().unwrap_or(""))
    );
    assert_eq!(items(&told["workloads"]).len(), 2);
    for workload in items(&told["workloads"]) {
        assert_eq!((number(&workload["curves"]), number(&workload["rows"])), (700.0, 700.0 * 32.0));
        let runs = items(&workload["runs"]);
        assert_eq!(runs.iter().map(|run| number(&run["threads"])).collect::<Vec<_>>(), [1.0, 2.0]);
        for run in runs {
            let stage = |name: &str| number(&run["stages"][name]);
            let fit: f64 = ["pack", "search", "refine", "judge"].map(stage).iter().sum();
            assert!(fit + stage("read") + stage("write") <= stage("wall"), "{run:#}");
            assert!(relative(fit, number(&run["fit"]["seconds"])) < ROUNDING, "{run:#}");
            for part in [&run["fit"], &run["whole"]] {
                assert!(
                    relative(700.0 / number(&part["seconds"]), number(&part["curves_per_second"])) < ROUNDING,
                    "{part}"
                );
            }
            let all: Vec<f64> = items(&run["whole"]["all_seconds"]).iter().map(number).collect();
            assert_eq!((all.len(), all[0].min(all[1])), (2, number(&run["whole"]["seconds"])));
            let searched = number(&workload["grid_points"]) > 1.0;
            assert_eq!(run["point_evaluations_per_second"].is_null(), !searched, "a closed form searches nothing");
            if searched {
                let evaluations = number(&workload["grid_points"]) * 700.0 * 32.0 / stage("search");
                assert!(relative(number(&run["point_evaluations_per_second"]), evaluations) < ROUNDING);
            }
            let counts: f64 = run["counts"].as_object().expect("counts").values().map(number).sum();
            assert_eq!((counts, number(&run["converged"])), (700.0, 1.0));
            assert_eq!((number(&run["reached_of"]), number(&run["reached"])), (50.0, 1.0));
            assert!(number(&run["verification"]["parameters_relative"]["worst"]) < 1e-4, "{run:#}");
        }
    }
}

#[test]
fn spots_and_robust_fits_reach_the_optimum_of_brute_force() {
    let told = bench(&["--workload", "W1", "--workload", "w3", "--curves", "24", "--repeat", "1", "--verify", "8"]);
    for workload in items(&told["workloads"]) {
        let run = &workload["runs"][0];
        assert_eq!((number(&run["reached_of"]), number(&run["reached"])), (8.0, 1.0), "{workload:#}");
    }
}

#[test]
fn starts_replace_the_search_but_not_brute_force() {
    let told = |starts: &str| {
        let arguments = format!("--workload W1 --curves 24 --repeat 1 --verify 8 {starts}");
        bench(&arguments.split_whitespace().collect::<Vec<_>>())["workloads"][0].clone()
    };
    let near = told("--start x0=2 --start y0=2 --start s=1");
    assert_eq!((number(&near["grid_points"]), &near["start"]["s"]), (1.0, &serde_json::json!([1.0])));
    assert_eq!(number(&near["runs"][0]["reached"]), 1.0, "starts within a tenth of the truth");
    // So far outside the image that no pixel is lit: a fit that was given this start has nowhere to go.
    let far = told("--start x0=40 --start y0=40 --start s=0.05");
    assert_eq!(number(&far["runs"][0]["converged"]), 0.0, "{far:#}");
}

#[test]
fn a_law_of_a_family_is_verified_as_it_was_searched() {
    // janoschek is searched in the parameters of another law of its family and spelled in its own.
    let told = bench(&["--law", "janoschek", "--curves", "60", "--repeat", "1", "--verify", "12"]);
    let run = &told["workloads"][0]["runs"][0];
    assert_eq!(run["reached_of"], 12, "{run:#}");
    assert!(number(&run["verification"]["fits"]) >= 11.0 && number(&run["reached"]) > 0.9, "{run:#}");
}

#[test]
fn the_table_for_people_holds_a_line_for_every_number_of_threads() {
    let ran =
        run(&["bench", "--law", "power", "--curves", "50", "--threads", "1,2", "--backend", "cpu", "--repeat", "1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("  cpu ")).collect();
    // Two lines of outcomes, two of stages.
    let reached = lines.iter().filter(|line| line.contains("50 of 50")).count();
    assert_eq!((lines.len(), reached), (4, 2), "{}", ran.stdout);
    assert!(ran.stderr.contains("power: measuring cpu with 2 threads"), "{}", ran.stderr);
}

#[test]
fn workloads_are_reproducible_and_a_longer_one_begins_with_the_shorter() {
    let folder = Folder::new();
    let keep = |name: &str, workload: &str, curves: &str, seed: &str| {
        let file = folder.file(name);
        let numbers = ["--curves", curves, "--seed", seed, "--repeat", "1", "--keep", &file];
        let told = bench(&[&["--workload", workload], &numbers[..]].concat());
        (Table::read(Path::new(&file)), told)
    };
    for (workload, columns) in [("W1", ["x", "y", "z"].as_slice()), ("W3", &["N", "D", "y"]), ("W7", &["x", "y"])] {
        let (table, told) = keep("a.parquet", workload, "12", "1");
        let (again, _) = keep("b.parquet", workload, "12", "1");
        let (longer, _) = keep("c.parquet", workload, "20", "1");
        let (other, _) = keep("d.parquet", workload, "12", "2");
        let response = columns[columns.len() - 1];
        assert_eq!(number(&told["workloads"][0]["rows"]), table.rows as f64);
        for column in columns {
            assert_eq!(table.numbers(column), again.numbers(column), "{workload} {column}");
            assert_eq!(table.numbers(column), &longer.numbers(column)[..table.rows], "{workload} {column}");
        }
        assert_ne!(table.numbers(response)[0], other.numbers(response)[0], "{workload}");
        assert!(longer.rows > table.rows);
    }
}

#[test]
fn a_file_is_measured_as_it_is_fitted() {
    let told = bench(&[&[SWEEP], &SWEEP_FIT[..], &["--repeat", "1"]].concat());
    let workload = &told["workloads"][0];
    assert_eq!((number(&workload["curves"]), number(&workload["rows"])), (500.0, 17_431.0));
    assert_eq!(number(&workload["runs"][0]["counts"]["converged"]), 500.0);
    assert_eq!(number(&workload["runs"][0]["reached"]), 1.0);
    assert!(workload["generated"].is_null());
}

#[test]
fn scaling_measures_powers_of_ten_and_draws_them() {
    let folder = Folder::new();
    let plot = folder.file("scaling.svg");
    let told = bench(&["--scaling", "--law", "power", "--curves", "2000", "--repeat", "1", "--plot", &plot]);
    let scales = items(&told["scaling"]);
    assert_eq!(scales.iter().map(|scale| number(&scale["curves"])).collect::<Vec<_>>(), [100.0, 1000.0, 2000.0]);
    for scale in scales {
        for part in ["whole", "fit"] {
            let rate = number(&scale["curves"]) / number(&scale[format!("{part}_seconds")]);
            assert!(relative(number(&scale[format!("{part}_curves_per_second")]), rate) < ROUNDING, "{scale}");
        }
        assert_eq!(number(&scale["converged"]), 1.0);
    }
    let drawn = std::fs::read_to_string(&plot).expect("the plot");
    assert!(
        drawn.starts_with("<svg") && drawn.ends_with("</svg>\n") && drawn.matches("<polyline").count() == 2,
        "{drawn}"
    );
    let text =
        run(&["bench", "--scaling", "--law", "power", "--curves", "100", "--backend", "cpu", "--repeat", "1"]).stdout;
    assert!(text.contains("fits/s against curves") && text.contains("  a  cpu, "), "{text}");
}

#[test]
fn nothing_is_left_behind() {
    let folder = Folder::new();
    let mut command =
        command(&["bench", "--law", "power", "--curves", "50", "--backend", "cpu", "--repeat", "1", "-q"]);
    let done = command.env("TMPDIR", folder.path("")).output().expect("the binary starts");
    assert!(done.status.success() && folder.names().is_empty(), "{:?}", folder.names());
}

#[cfg(unix)]
#[test]
fn a_signal_takes_the_generated_sweep_away() {
    use std::process::Stdio;
    let folder = Folder::new();
    let mut command = command(&["bench", "--workload", "W7", "--backend", "cpu", "-q"]);
    let child = command.env("TMPDIR", folder.path("")).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // A file in the bench's own folder shows that it is under way.
    let begun = |name: &String| folder.path(name).read_dir().is_ok_and(|mut files| files.next().is_some());
    let start = std::time::Instant::now();
    while !folder.names().iter().any(begun) {
        assert!(start.elapsed().as_secs() < 30, "nothing was generated");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill is there");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn mistakes_are_explained() {
    for (arguments, message) in [
        (&["--workload", "W2"][..], "unknown workload \"W2\": choose W1, W3, W7"),
        (&["--workload", "W1", "--law", "power"], "cannot be used with"),
        (&["--workload", "W1", "--loss", "huber"], "cannot be used with"),
        (&["--workload", "W1", "--points", "9"], "the points of W1 are a grid"),
        (&["--law", "power", "--start", "q=1"], "no law has a parameter q"),
        (&["--law", "saturating_pwer"], "did you mean saturating_power?"),
        (&["--law", "y ~ E + A*x^-alpha"], "sweepfit generate"),
        (&["--law", "power", "--curves", "0"], "0 is not in 1"),
        (&["--law", "power", "--points", "9:3"], "LO <= HI"),
        (&["--law", "power", "--noise=-1"], "0 or more"),
        (&["--law", "power", "--threads", "0"], "0 is not in 1"),
        (&["--law", "power", "--repeat", "0"], "0 is not in 1"),
        (&["--law", "power", "--backend", "cpu", "--adapter", "any"], "leave one of them out"),
        (&["--law", "power", "--backend", "gpu", "--adapter", "no such card"], "adapter"),
        (&["--law", "power", "--plot", "a.svg"], "--scaling"),
        (&["--scaling", "--workload", "W1", "--workload", "W3"], "one workload"),
        (&["--scaling", "--curves", "99"], "begins at 100"),
        (&["--law", "power", "--law", "chinchilla", "--keep", "a.parquet"], "--keep keeps one sweep"),
        (&["--law", "power", "--y", "loss"], "<FILE>"),
        (&[SWEEP], "needs --law"),
        (&[SWEEP, "--law", "power", "--curves", "5"], "cannot be used with"),
        (&[SWEEP, "--law", "power", "--x", "token", "--y", "loss", "--by", "run"], "did you mean \"tokens\"?"),
        (&["nowhere.parquet", "--law", "power"], "nowhere.parquet"),
    ] {
        let ran = run(&[&["bench"], arguments].concat());
        assert!(ran.code == 2 && ran.stderr.contains(message), "{arguments:?} should say {message:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}
