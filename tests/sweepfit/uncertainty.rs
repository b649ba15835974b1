//! Standard errors and the bootstrap: against other programs, against theory, and against themselves.

use crate::support::{Folder, SWEEP, SWEEP_FIT, Table, fit, generated, largest, relative, run, shared, words};
use std::path::Path;

/// A power law with noise.
const X: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const Y: [f64; 10] = [3.02, 2.71, 2.33, 2.1, 1.97, 1.6, 1.55, 1.21, 1.17, 0.94];
const W: [f64; 10] = [1.0, 2.0, 1.0, 0.5, 1.0, 3.0, 1.0, 1.0, 2.0, 0.25];
const POWER: [&str; 6] = ["--law", "power", "--x", "x", "--y", "y"];

/// The table, each row `copies` times, with a label per row.
fn table(copies: usize) -> String {
    let mut text = String::from("x,y,w,group\n");
    for ((x, y), w) in X.iter().zip(Y).zip(W) {
        (0..copies).for_each(|_| text += &format!("{x},{y},{w},run {x}\n"));
    }
    text
}

/// statsmodels 0.15.0, OLS and WLS of log y on log x: standard errors of a = exp(constant) and p, classical and HC1, and the HC1
/// covariance of a and p.
const STATSMODELS: [(&[&str], [f64; 5]); 2] = [
    (
        &[],
        [
            0.08312645925120209,
            0.007308334737227277,
            0.049454571804187906,
            0.006582026136756788,
            -0.00023091512825157035,
        ],
    ),
    (
        &["--weight", "w"],
        [0.07454795308240937, 0.006907967031526301, 0.03762489498073422, 0.005349494141671533, -0.00012346983946574485],
    ),
];

#[test]
fn standard_errors_are_those_of_statsmodels() {
    const TOLERANCE: f64 = 1e-12;
    let folder = Folder::new();
    let input = folder.text("table.csv", &table(1));
    for (weight, [a, p, a_robust, p_robust, covariance]) in STATSMODELS {
        let classical = fit(&input, &[&POWER, weight].concat());
        let robust = fit(&input, &[&POWER, weight, &["--se", "robust", "--covariance"]].concat());
        for (found, expected) in [
            (classical.number("a_se"), a),
            (classical.number("p_se"), p),
            (robust.number("a_se"), a_robust),
            (robust.number("p_se"), p_robust),
        ] {
            assert!(relative(found, expected) < TOLERANCE, "{weight:?}: {found}, statsmodels {expected}");
        }
        let entries = robust.texts("covariance")[0].trim_matches(['[', ']']).to_string();
        let entry: f64 = entries.split(", ").nth(1).expect("three entries").parse().expect("a number");
        assert!(relative(entry, covariance) < TOLERANCE, "{weight:?}: {entries}, statsmodels {covariance}");
        assert_eq!(classical.metadata["sweepfit.standard_errors"], "classical: H^-1 s^2, s^2 = 2 objective/(n-p)");
        assert!(robust.metadata["sweepfit.standard_errors"].starts_with("robust"));
    }
}

#[test]
fn the_summary_says_why_there_are_no_standard_errors() {
    let folder = Folder::new();
    let input = folder.text("three.csv", "x,y\n1,5\n2,3\n4,2.5\n");
    let out = folder.file("fits.parquet");
    let ran = run(&["fit", &input, "--law", "saturating_power", "--x", "x", "--y", "y", "-o", &out]);
    let fits = Table::read(Path::new(&out));
    assert!(fits.texts("status")[0] == "converged" && fits.number("alpha_se").is_nan(), "{}", ran.stderr);
    assert!(ran.stderr.contains("standard errors are null for 1: as many parameters as points"), "{}", ran.stderr);
}

#[test]
fn residual_and_wild_bootstraps_have_the_standard_errors_of_theory() {
    // Given the data, the variance of a residual bootstrap of a straight line is the classical one, and that of a wild
    // bootstrap HC1; with B replicates a standard deviation is known to 1/sqrt(2 B), of which this is five.
    const REPLICATES: &str = "20000";
    const TOLERANCE: f64 = 0.025;
    let folder = Folder::new();
    let input = folder.text("table.csv", &table(1));
    for (scheme, errors) in [("residual", "classical"), ("wild", "robust")] {
        let bootstrap = format!("{REPLICATES}:{scheme}");
        for weight in [&[][..], &["--weight", "w"]] {
            // Weighted, residuals of unit variance do not add up to zero, and centring them takes a little away.
            let centred = if scheme == "residual" && !weight.is_empty() { 0.02 } else { 0.0 };
            let flags = ["--bootstrap", &bootstrap, "--se", errors, "--seed", "1"];
            let fits = fit(&input, &[&POWER, weight, &flags[..]].concat());
            let ratio = fits.number("p_boot_se") / fits.number("p_se");
            assert!((ratio - 1.0).abs() < TOLERANCE + centred, "{scheme} {weight:?}: ratio {ratio}");
            assert_eq!((fits.number("boot_fitted"), fits.number("boot_at_bound")), (20000.0, 0.0));
        }
    }
}

#[test]
fn clusters_are_resampled_whole() {
    let folder = Folder::new();
    let (once, thrice) = (folder.text("once.csv", &table(1)), folder.text("thrice.csv", &table(3)));
    for scheme in ["300:pairs", "300:fractional", "300:wild"] {
        let flags = ["--bootstrap", scheme, "--seed", "5"];
        let rows = fit(&once, &[&POWER, &flags[..]].concat());
        let clusters = fit(&thrice, &[&POWER, &flags[..], &["--cluster", "group"]].concat());
        let copies = fit(&thrice, &[&POWER, &flags[..]].concat());
        // Under `wild` the scale n/(n − p) sees three times the rows.
        let scale: f64 = if scheme == "300:wild" { (10.0 / 8.0 / (30.0 / 28.0f64)).sqrt() } else { 1.0 };
        let (row, cluster) = (rows.number("p_boot_se"), clusters.number("p_boot_se") * scale);
        assert!(relative(cluster, row) < 1e-6, "{scheme}: {cluster} by clusters of copies, {row} by rows");
        assert!(copies.number("p_boot_se") < 0.75 * row, "{scheme}: copies taken for measurements show the difference");
    }
    let ran = run(&[
        &["fit", &once][..],
        &POWER,
        &["--where", "x > 100", "--bootstrap", "10", "--cluster", "w", "-o", &folder.file("o.parquet")],
    ]
    .concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn threads_and_neighbours_do_not_change_a_replicate() {
    let folder = Folder::new();
    let draws = |name: &str, flags: &[&str]| {
        let (out, draws) = (folder.file(&format!("{name}.parquet")), folder.file(&format!("{name}_draws.parquet")));
        let flags = [flags, &["--bootstrap", "200", "--draws", &draws, "-o", &out]].concat();
        let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &flags].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (std::fs::read(out).expect("fits"), std::fs::read(&draws).expect("draws"), Table::read(Path::new(&draws)))
    };
    let some = ["--where", "run < 'c00000020'"];
    let one = draws("one", &[&some[..], &["--threads", "1"]].concat());
    let two = draws("two", &[&some[..], &["--threads", "2"]].concat());
    assert!(one.0 == two.0 && one.1 == two.1, "two threads give other bytes than one");
    let seeded = draws("seeded", &[&some[..], &["--seed", "1"]].concat());
    assert!(seeded.2.numbers("alpha") != one.2.numbers("alpha"), "a seed changes the replicates");
    // The tenth curve's rows look no different for the company of the others.
    let law = ["--law", "power", "--law", "saturating_power"];
    let alone = draws("alone", &[&some[..], &law[..2]].concat());
    let both = draws("both", &[&["--where", "run < 'c00000010'"], &law[..2]].concat());
    let own = |table: &Table| -> Vec<u64> {
        let rows = (0..table.rows)
            .filter(|&row| table.texts("run")[row] == "c00000009" && table.texts("law")[row] == "saturating_power");
        rows.map(|row| table.numbers("alpha")[row].to_bits()).collect()
    };
    assert_eq!(own(&one.2).len(), 200);
    assert!(own(&one.2) == own(&alone.2) && own(&one.2) == own(&both.2));
}

#[test]
fn draws_are_what_the_intervals_are_made_of_and_what_predict_reads() {
    let folder = Folder::new();
    let (out, draws) = (folder.file("fits.parquet"), folder.file("draws.parquet"));
    let some = ["--where", "run < 'c00000003'", "--bootstrap", "400:fractional", "--level", "0.8"];
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &some, &["--draws", &draws, "-o", &out]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (fits, draws_table) = (Table::read(Path::new(&out)), Table::read(Path::new(&draws)));
    assert_eq!(draws_table.names, ["run", "law", "replicate", "E", "A", "alpha"]);
    assert_eq!((fits.rows, draws_table.rows), (3, 1200));
    for row in 0..fits.rows {
        let own = 400 * row..400 * (row + 1);
        assert!(draws_table.texts("run")[own.clone()].iter().all(|run| *run == fits.texts("run")[row]));
        assert!(draws_table.numbers("replicate")[own.clone()].iter().copied().eq((0..400).map(f64::from)));
        let mut alphas = draws_table.numbers("alpha")[own].to_vec();
        alphas.sort_by(f64::total_cmp);
        // The tenth percentile lies at 0.1 · 399 = 39.9 of the ordered draws.
        let low = alphas[39] + 0.9 * (alphas[40] - alphas[39]);
        assert!(relative(fits.numbers("alpha_lo")[row], low) < 1e-14);
        assert!(fits.numbers("alpha_hi")[row] > fits.numbers("alpha")[row]);
    }
    let predicted = folder.file("predicted.parquet");
    let ran = run(&["predict", &out, "--at", "tokens=1e6", "--draws", &draws, "-o", &predicted]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(Table::read(Path::new(&predicted)).numbers("mean_lo").iter().all(|low| low.is_finite()));
}

#[test]
fn starting_from_the_best_fit_finds_what_a_search_finds_on_tame_curves() {
    let flags = ["--where", "run < 'c00000040'", "--bootstrap", "50:fractional"];
    let searched = fit(SWEEP, &[&SWEEP_FIT, &flags[..]].concat());
    let best = fit(SWEEP, &[&SWEEP_FIT, &flags[..], &["--bootstrap-start", "best"]].concat());
    for name in ["alpha_lo", "alpha_hi", "E_boot_se"] {
        let apart = largest(searched.numbers(name).iter().zip(best.numbers(name)).map(|(a, b)| relative(*a, *b)));
        assert!(apart < 1e-6, "{name}: {apart}");
    }
}

/// Sweeps whose intervals are held against the truth: recipe, fit, parameters.
const SWEEPS: [(&str, &str, &[&str]); 3] = [
    (
        "--law saturating_power --points 32 --x x=1:1e4 --param E=1.5:2.5 --param A=5:15 --param alpha=0.2:0.6 --noise 0.02",
        "--law saturating_power --x x --y y",
        &["E", "A", "alpha"],
    ),
    (
        "--law chinchilla --points 60 --x N=1e7:1e10 --x D=1e9:1e12 --param E=1.5:2 --param A=300:500 \
         --param B=300:3000 --param alpha=0.3:0.4 --param beta=0.3:0.4 --noise 0.01",
        "--law chinchilla --x N,D --y y",
        &["E", "A", "B", "alpha", "beta"],
    ),
    (
        "--law broken_power --points 40 --x x=1:1e4 --param A=1:5 --param x_b=30:300:log --param alpha=0.05:0.2 \
         --param eta=0.4:0.8 --param Delta=0.1:0.5 --noise 0.01",
        "--law broken_power --x x --y y",
        &["A", "x_b", "alpha", "eta", "Delta"],
    ),
];

#[test]
fn intervals_of_parameters_cover_as_often_as_they_say() {
    // Amplitudes of terms whose exponents are uncertain are log-normal rather than normal: plain intervals of Chinchilla's fall
    // short, as ARCHITECTURE.md says, and those on the logarithm do not.
    const SHORT: [(&str, f64); 2] = [("A", 0.92), ("B", 0.895)];
    for (recipe, law, parameters) in SWEEPS {
        let folder = Folder::new();
        let truth = folder.file("truth.parquet");
        let sweep = generated(&folder, "sweep.parquet", &format!("{recipe} --curves 2000 --seed 11 --truth {truth}"));
        let truth = Table::read(Path::new(&truth));
        for intervals in ["plain", "log"] {
            let flags = ["--by", "curve", "--level", "0.95", "--intervals", intervals];
            let fits = fit(&sweep, &[&words(law)[..], &flags].concat());
            for name in parameters {
                let [low, high] = ["lo", "hi"].map(|end| fits.numbers(&format!("{name}_{end}")));
                let known: Vec<usize> = (0..fits.rows).filter(|&row| !low[row].is_nan()).collect();
                assert!(known.len() >= 1980, "{law}: {} have an interval of {name}", known.len());
                let inside = |row: &&usize| (low[**row]..=high[**row]).contains(&truth.numbers(name)[**row]);
                let share = known.iter().filter(inside).count() as f64 / known.len() as f64;
                println!("{law}, {intervals}: {name} {share:.4}");
                let short = SHORT.iter().find(|(short, _)| short == name && parameters.contains(&"B"));
                let least = short.filter(|_| intervals == "plain").map_or(0.93, |(_, share)| *share);
                assert!((least..=0.97).contains(&share), "{law}, {intervals}: {name} is covered by {share}");
            }
        }
    }
}

#[test]
fn expanded_percentiles_cover_where_plain_ones_fall_short() {
    let folder = Folder::new();
    let truth = folder.file("truth.parquet");
    let recipe = SWEEPS[0].0.replace("--points 32", "--points 16");
    let sweep = generated(&folder, "sweep.parquet", &format!("{recipe} --curves 1000 --seed 11 --truth {truth}"));
    let truth = Table::read(Path::new(&truth));
    for (intervals, [least, most]) in [("plain", [0.87, 0.95]), ("expanded", [0.93, 0.98])] {
        let flags = ["--by", "curve", "--bootstrap", "300", "--intervals", intervals];
        let fits = fit(&sweep, &[&words(SWEEPS[0].1)[..], &flags].concat());
        for name in SWEEPS[0].2 {
            let [low, high] = ["lo", "hi"].map(|end| fits.numbers(&format!("{name}_{end}")));
            let inside = |row: &usize| (low[*row]..=high[*row]).contains(&truth.numbers(name)[*row]);
            let share = (0..fits.rows).filter(inside).count() as f64 / fits.rows as f64;
            println!("{intervals}: {name} {share:.3}");
            assert!((least..=most).contains(&share), "{intervals}: {name} is covered by {share}");
        }
    }
    for (flags, part) in [
        (&["--intervals", "log", "--bootstrap", "9"][..], "give --level, and no --bootstrap"),
        (&["--intervals", "log"], "give --level"),
        (&["--intervals", "expanded", "--level", "0.9"], "give --bootstrap"),
    ] {
        let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], flags, &["-o", &folder.file("x.parquet")]].concat());
        assert!(ran.code == 2 && ran.stderr.contains(part), "{flags:?}\n{}", ran.stderr);
    }
}

/// 95% intervals of 4,000 replicates, each from a single start, and standard errors (Besiroglu et al. 2024).
const PUBLISHED: [(&str, [f64; 2]); 5] = [
    ("E", [1.769, 1.871]),
    ("A", [285.2, 743.6]),
    ("B", [1042.0, 5811.0]),
    ("alpha", [0.317, 0.373]),
    ("beta", [0.331, 0.415]),
];

#[test]
#[cfg_attr(not(shared_data), ignore = "needs ../shared/data")]
fn chinchilla_has_the_published_intervals() {
    // Two bootstraps of 4,000 and 1,000 replicates agree on an end of an interval to about a tenth of its width.
    const OF_WIDTH: f64 = 0.12;
    let flags = ["--law", "chinchilla", "--x", "params,tokens", "--y", "loss", "--where", "not excluded_outlier"];
    let flags = [&flags[..], &["--loss", "huber:1e-3", "--bootstrap", "1000"]].concat();
    let fits = fit(&shared("chinchilla.parquet"), &flags);
    assert_eq!(fits.number("boot_fitted"), 1000.0);
    for (name, published) in PUBLISHED {
        let found = ["lo", "hi"].map(|end| fits.number(&format!("{name}_{end}")));
        let width = published[1] - published[0];
        let apart = largest(found.iter().zip(published).map(|(a, b)| ((a - b) / width).abs()));
        assert!(apart < OF_WIDTH, "{name}: {found:?}, published {published:?}");
    }
    for (name, published) in [("E", 0.02566), ("alpha", 0.0154), ("beta", 0.0206)] {
        let found = fits.number(&format!("{name}_boot_se"));
        assert!(relative(found, published) < 0.1, "{name}: {found}, published {published}");
    }
}
