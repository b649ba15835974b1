//! Which of several laws: scores, ties, families, and what cannot be compared.

use crate::support::{Folder, SWEEP, Table, fit, relative, run};
use std::path::Path;

const INPUTS: [&str; 6] = ["--x", "tokens", "--y", "loss", "--by", "run"];

/// Each curve's best law; every curve has one.
fn winners(fits: &Table) -> Vec<String> {
    let best = |row: &usize| fits.texts("best")[*row] == "true";
    let rows: Vec<usize> = (0..fits.rows).filter(best).collect();
    let runs: std::collections::HashSet<&String> = rows.iter().map(|&row| &fits.texts("run")[row]).collect();
    assert_eq!(runs.len(), rows.len(), "a curve with two best laws");
    rows.iter().map(|&row| fits.texts("law")[row].clone()).collect()
}

#[test]
fn the_law_of_the_data_wins_and_evidence_adds_up() {
    let laws = ["--law", "power", "--law", "saturating_power", "--law", "logarithmic"];
    for (criterion, least) in [("aicc", 0.95), ("bic", 0.95), ("holdout", 0.9)] {
        let fits = fit(SWEEP, &[&laws[..], &INPUTS, &["--select", criterion]].concat());
        let winners = winners(&fits);
        assert_eq!(winners.len(), 500, "{criterion}");
        let share = winners.iter().filter(|law| *law == "saturating_power").count() as f64 / 500.0;
        assert!(share >= least, "{criterion}: the true law wins {share} of the curves");
        for evidence in fits.numbers("evidence").chunks(3) {
            let known: Vec<f64> = evidence.iter().copied().filter(|evidence| !evidence.is_nan()).collect();
            assert!((known.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{criterion}: {evidence:?}");
        }
        assert_eq!(fits.names.contains(&"holdout_rmse".to_string()), criterion == "holdout");
        assert!(fits.metadata["sweepfit.select"].starts_with(criterion));
    }
}

#[test]
fn the_error_on_held_out_points_is_that_of_a_fit_to_the_others() {
    // Ten points at powers of two: 30% held out are 128, 256 and 512.
    let folder = Folder::new();
    let (mut text, mut held) = (String::from("run,tokens,loss\n"), Vec::new());
    for power in [3, 9, 0, 5, 1, 8, 2, 7, 4, 6] {
        let (x, wobble) = (f64::from(1 << power), if power % 3 == 0 { 1.01 } else { 0.995 });
        let y = (2.0 + 8.0 * x.powf(-0.4)) * wobble;
        text += &format!("a,{x},{y}\n");
        if power >= 7 {
            held.push((x, y));
        }
    }
    let input = folder.text("table.csv", &text);
    let laws = ["--law", "saturating_power"];
    let judged = fit(&input, &[&laws[..], &INPUTS, &["--select", "holdout:0.3"]].concat());
    let others = fit(&input, &[&laws[..], &INPUTS, &["--where", "tokens < 100"]].concat());
    let [e, a, alpha] = ["E", "A", "alpha"].map(|name| others.number(name));
    let squares: f64 = held.iter().map(|(x, y)| (y / (e + a * x.powf(-alpha))).ln().powi(2)).sum();
    let expected = (squares / 3.0).sqrt();
    assert!(relative(judged.number("holdout_rmse"), expected) < 1e-7, "{} {expected}", judged.number("holdout_rmse"));
    let all = fit(&input, &[&laws[..], &INPUTS].concat());
    assert_eq!(judged.number("alpha"), all.number("alpha"), "the fit that is written is one to all points");
}

#[test]
fn a_family_counts_once() {
    let laws = ["--law", "hill", "--law", "mmf", "--law", "power"];
    let fits = fit(SWEEP, &[&laws[..], &INPUTS, &["--where", "run < 'c00000040'", "--select", "bic"]].concat());
    assert!(!winners(&fits).is_empty());
    for row in (0..fits.rows).step_by(3) {
        let evidence = &fits.numbers("evidence")[row..row + 3];
        assert!(evidence[0].is_nan() || evidence[1].is_nan(), "two spellings of one curve: {evidence:?}");
    }
}

#[test]
fn laws_that_failed_cannot_win() {
    // Four points bear two parameters and a criterion, but not three with AICc's correction.
    let folder = Folder::new();
    let input =
        folder.text("four.csv", "run,tokens,loss\na,1,5\na,2,3\na,4,2.5\na,8,2.2\nb,1,1\nb,2,1\nb,4,1\nb,8,1\n");
    let laws = ["--law", "power", "--law", "saturating_power"];
    let out = folder.file("fits.csv");
    let ran = run(&[&["fit", &input], &laws[..], &INPUTS, &["--select", "aicc", "-o", &out]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let fits = fit(&input, &[&laws[..], &INPUTS, &["--select", "aicc"]].concat());
    assert_eq!(fits.texts("best"), ["false", "false", "false", "false"], "n = k + 1 for two parameters already");
    let fits = fit(&input, &[&laws[..], &INPUTS, &["--select", "bic"]].concat());
    assert_eq!(fits.texts("best"), ["true", "false", "false", "false"], "saturated and constant curves have no winner");
    let ran = run(&[&["fit", &input], &laws[..], &INPUTS, &["--select", "holdout:0.5", "-o", &out]].concat());
    assert!(ran.stderr.contains("no error on held-out points for 1"), "{}", ran.stderr);
    assert!(Path::new(&out).exists());
}
