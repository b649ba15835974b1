//! Bad input: every refusal names what is wrong and the repair, exits with 2 and leaves no output.

use crate::support::{Folder, Ran, SWEEP, fit, run};
use std::path::Path;

const TABLE: &str = "run,x,y,text,minus\na,1,3,u,-1\na,2,2,v,1\na,4,1.5,w,1\na,8,1.25,u,1\n";

/// Runs what cannot run and reads why.
fn refused(arguments: &[&str], message: &str) -> Ran {
    let folder = Folder::new();
    let (table, out) = (folder.text("table.csv", TABLE), folder.file("fits.parquet"));
    let ran = run(&[&["fit", &table], arguments, &["-o", &out]].concat());
    assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(message), "{arguments:?}: expected `{message}` in\n{}", ran.stderr);
    assert_eq!(folder.names(), ["table.csv"], "{arguments:?} left something behind");
    ran
}

#[test]
fn wrong_columns_are_named_with_the_nearest() {
    refused(&["--law", "power", "--x", "xx", "--y", "y"], "column \"xx\" is not in the input; did you mean \"x\"?");
    refused(&["--law", "power", "--x", "x", "--y", "tokens"], "\"tokens\" is not in the input (columns: run, x, y");
    refused(&["--law", "power", "--x", "x", "--y", "y", "--by", "rum"], "did you mean \"run\"?");
    refused(&["--law", "power", "--x", "text", "--y", "y"], "column \"text\"");
    refused(&["--law", "power", "--x", "x", "--y", "y", "--weight", "weigth"], "column \"weigth\" is not in the input");
    refused(&["--law", "power", "--x", "x", "--y", "y", "--where", "xs > 1"], "did you mean `x`?");
    refused(&["--law", "power", "--x", "x", "--y", "y", "--where", "text > 1"], "compared with");
}

#[test]
fn formulas_are_refused_with_a_caret_under_the_mistake() {
    for (law, message) in [
        ("y ~ E + A*x^", "^"),
        ("y ~ E + lgo(x)", "did you mean `log`?"),
        ("y ~ E + (A*x", "("),
        ("y ~ E + A ** x", "*"),
    ] {
        let ran = refused(&["--law", law], message);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let caret = lines.iter().position(|line| line.trim() == "^").expect("a caret");
        assert!(lines[caret - 1].ends_with(law), "{law}: {}", ran.stderr);
    }
    refused(&["--law", "y ~ E + A*q"], "uses no column of the table; columns are: run, x, y");
    refused(&["--law", "y ~ x"], "has no parameter to fit");
    refused(&["--law", "E + A*x"], "has no left side: write `COLUMN ~ E + A*x` or name the response with --y COL");
    refused(&["--law", "yy ~ E + A*x"], "the left side may use columns only, `yy` is none; did you mean `y`?");
    refused(&["--law", "q2 ~ E + A*x"], "`q2` is none (columns: run, x, y");
    refused(&["--law", "y ~ E + A*x", "--y", "minus"], "differ: leave one of them out");
    refused(&["--law", "powr", "--x", "x", "--y", "y"], "unknown law \"powr\"; did you mean power?");
}

#[test]
fn laws_without_their_inputs_say_what_to_give() {
    refused(&["--law", "chinchilla", "--x", "x", "--y", "y"], "law chinchilla needs 2 inputs (N, D)");
    refused(&["--law", "y = E + A*x"], "has no left side: write `y ~ E + A*x` or name the response with --y COL");
    refused(
        &["--law", "m = E + A*x"],
        "has no left side: write `m = COLUMN ~ E + A*x` or name the response with --y COL",
    );
    refused(&["--law", "power", "--x", "x"], "law power has no left side: name the response with --y COL");
    refused(&["--law", "all", "--y", "y"], "no law has its inputs mapped; name them with --x");
    refused(&["--law", "power", "--law", "power", "--x", "x", "--y", "y"], "two laws are called \"power\"");
}

#[test]
fn controls_that_cannot_be_meant_are_refused() {
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y"];
    for (flags, message) in [
        (&["--bound", "alpha=2:1"][..], "LO 2 is above HI 1: write alpha=1:2"),
        (&["--bound", "alpah=1:2"], "no law has a parameter alpah; did you mean alpha? (parameters: E, A, alpha)"),
        (&["--bound", "zzzzzz=1:2"], "no law has a parameter zzzzzz (parameters: E, A, alpha)"),
        (&["--fix", "alpha"], "give P=V, as in E=1.69"),
        (&["--fix", "alpha=1", "--start", "alpha=2"], "keep one"),
        (&["--fix", "alpha=1", "--fix", "E=1", "--fix", "A=1"], "every parameter is fixed, nothing is left to fit"),
        (&["--grid", "alpha=1:2"], "give P=LO:HI:CELLS"),
        (&["--grid", "alpha=1:2:3", "--start", "alpha=1"], "--grid and --start are both given for alpha"),
        (&["--start", "alpha=5", "--bound", "alpha=0:1"], "lies outside its --bound"),
        (&["--loss", "huber:-1"], "DELTA must be above 0"),
        (&["--weight", "x", "--sigma", "y"], "cannot be used with"),
        (&["--threads", "0"], "--threads"),
        (&["--space", "loglog"], "possible values: log, linear"),
        (&["--backend", "cpu", "--adapter", "any"], "--backend cpu uses none"),
    ] {
        refused(&[&law, flags].concat(), message);
    }
}

#[test]
fn names_that_would_stand_twice_are_refused() {
    let folder = Folder::new();
    let table = folder.text("table.csv", &TABLE.replacen("run", "E", 1));
    let out = folder.file("fits.parquet");
    let ran = run(&["fit", &table, "--law", "saturating_power", "--x", "x", "--y", "y", "--by", "E", "-o", &out]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("column \"E\" would stand twice in the output; rename"), "{}", ran.stderr);
    refused(&["--law", "power", "--x", "x", "--y", "y", "--by", "run,run"], "--by names \"run\" twice");
}

#[test]
fn files_that_are_no_tables_are_named() {
    let folder = Folder::new();
    let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP)).expect("the sweep");
    std::fs::write(folder.path("truncated.parquet"), &whole[..whole.len() / 2]).expect("a file");
    let mut corrupt = whole.clone();
    corrupt[30..5000].fill(0x5a);
    std::fs::write(folder.path("corrupt.parquet"), corrupt).expect("a file");
    folder.text("prose.parquet", "this is no Parquet file, it is prose");
    folder.text("empty.parquet", "");
    let out = folder.file("fits.parquet");
    for name in
        ["truncated.parquet", "corrupt.parquet", "prose.parquet", "empty.parquet", "absent.parquet", "none*.csv"]
    {
        let input = folder.file(name);
        let ran = run(&["fit", &input, "--law", "power", "--x", "tokens", "--y", "loss", "--by", "run", "-o", &out]);
        assert_eq!(ran.code, 2, "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains("error: ") && ran.stderr.contains(name), "{name}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
        assert!(!Path::new(&out).exists(), "{name}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named_before_the_run() {
    let folder = Folder::new();
    let table = folder.text("table.csv", TABLE);
    let flags = ["--law", "power", "--x", "x", "--y", "y"];
    let out = folder.file("no/such/folder/fits.parquet");
    let ran = run(&[&["fit", &table], &flags[..], &["-o", &out]].concat());
    assert!(ran.code == 2 && ran.stderr.contains(&out), "{}", ran.stderr);
    let ran = run(&[&["fit", &table], &flags[..], &["-o", &table]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("is an input, too"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&table).expect("the table"), TABLE);
}

#[test]
fn a_gpu_that_is_not_there_is_never_replaced() {
    let law = ["--law", "power", "--x", "x", "--y", "y", "--backend", "gpu"];
    // With a name that no adapter has, whatever this machine holds: the list, or the word that there is none.
    let ran = refused(&[&law[..], &["--adapter", "no such card"]].concat(), "adapter");
    assert!(ran.stderr.contains("no such card") || ran.stderr.contains("no GPU adapter was found"), "{}", ran.stderr);
}

#[test]
fn bad_curves_are_data_and_their_neighbours_do_not_notice() {
    let folder = Folder::new();
    let mut text = String::from("run,x,y\n");
    for run in ["good", "constant", "negative", "zero_x", "infinite", "short", "same_x", "also_good"] {
        for step in 1..=if run == "short" { 2 } else { 9 } {
            let x = f64::from(1 << step);
            let y = 1.0 + 3.0 * x.powf(-0.5) + 0.01 * f64::from(step % 3);
            let (x, y) = match run {
                "constant" => (x, 2.0),
                "negative" if step == 4 => (x, -y),
                "zero_x" if step == 1 => (0.0, y),
                "infinite" if step == 5 => (x, f64::INFINITY),
                "same_x" => (4.0, y),
                _ => (x, y),
            };
            text += &format!("{run},{x},{y}\n");
        }
    }
    let flags = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "run"];
    let (input, out) = (folder.text("bad.csv", &text), folder.file("fits.parquet"));
    let fits = fit(&input, &flags);
    let status = [
        "converged",
        "degenerate",
        "bad_domain",
        "bad_domain",
        "bad_domain",
        "too_few_points",
        "degenerate",
        "converged",
    ];
    assert_eq!(fits.texts("status"), status);
    assert_eq!(fits.numbers("alpha")[0].to_bits(), fits.numbers("alpha")[7].to_bits());
    assert!((1..7).all(|row| fits.numbers("alpha")[row].is_nan()));
    let ran = run(&[&["fit", &input], &flags[..], &["-o", &out]].concat());
    assert!(
        ran.stderr.contains("3 bad_domain (first run=negative)") && ran.stderr.contains("--where"),
        "{}",
        ran.stderr
    );
    let dropped = fit(&input, &[&flags[..], &["--drop-bad-rows"]].concat());
    assert_eq!(dropped.texts("status")[2..4], ["converged", "converged"]);
    assert_eq!(dropped.numbers("points")[2..4], [8.0, 8.0]);
}

#[test]
fn empty_input_gives_an_empty_table_of_the_same_columns() {
    let flags = ["--law", "saturating_power", "--x", "tokens", "--y", "loss", "--by", "run"];
    let (empty, full) = (fit(SWEEP, &[&flags[..], &["--where", "tokens < 0"]].concat()), fit(SWEEP, &flags));
    assert_eq!((empty.rows, &empty.names), (0, &full.names));
}

#[test]
fn generate_refuses_what_it_cannot_make() {
    let folder = Folder::new();
    let out = folder.file("sweep.parquet");
    for (flags, message) in [
        (&["--law", "a*sin(w*x)", "--x", "x=1:10"][..], "w"),
        (&["--law", "power", "--param", "a=1", "--param", "p=1", "--param", "q=1"], "q"),
        (&["--law", "powr"], "did you mean power?"),
        (
            &["--law", "power", "--param", "a=1", "--param", "p=1", "--noise=-1"],
            "give a standard deviation of 0 or more",
        ),
    ] {
        let ran = run(&[&["generate"], flags, &["-o", &out]].concat());
        assert!(ran.code == 2 && ran.stderr.contains(message), "{flags:?}: {}", ran.stderr);
        assert!(folder.names().is_empty(), "{flags:?}");
    }
}

#[test]
fn bootstraps_and_tournaments_that_cannot_be_meant_are_refused() {
    let law = ["--law", "power", "--x", "x", "--y", "y"];
    for (flags, message) in [
        (&["--bootstrap", "1"][..], "B must be a whole number from 2 to 1000000"),
        (&["--bootstrap", "100:jackknife"], "give B:SCHEME with one of pairs, fractional, wild, residual"),
        (&["--seed", "3"], "--bootstrap <B[:SCHEME]>"),
        (&["--draws", "d.parquet"], "--bootstrap <B[:SCHEME]>"),
        (&["--cluster", "text"], "--bootstrap <B[:SCHEME]>"),
        (&["--bootstrap", "10", "--cluster", "tex"], "did you mean \"text\"?"),
        (&["--bootstrap", "10:residual", "--cluster", "text"], "take pairs, fractional or wild"),
        (&["--bootstrap", "10", "--draws", "-"], "name a file of its own"),
        (&["--select", "aic"], "give aicc, bic, holdout or holdout:FRACTION"),
        (&["--select", "holdout:1"], "FRACTION must lie between 0 and 1"),
        (&["--se", "sandwich"], "possible values: classical, robust"),
    ] {
        refused(&[&law[..], flags].concat(), message);
    }
    let sides = ["--law", "y ~ a*x^p", "--law", "log(y) ~ a + b*x", "--select", "bic"];
    refused(&sides, "--select compares laws of one left side: y ~ a*x^p has `y` and log(y) ~ a + b*x has `log(y)`");
}
