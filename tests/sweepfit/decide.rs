//! What fits are for: covariances, intervals, forecasts, allocations, diagnoses, designs; against published answers, known
//! truth and plain arithmetic.

use crate::support::{
    Folder, GADRE_LAW, Ran, SWEEP, SWEEP_FIT, Table, gadre_filter, generated, made, relative, run, shared, words,
};
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use sweepfit::law::{Law, Mapping, catalogue};

/// The numbers of a list column, row by row.
fn lists(table: &Table, name: &str) -> Vec<Vec<f64>> {
    let inner = |text: &String| text.trim_matches(['[', ']']).to_string();
    let numbers = |text: String| {
        text.split(", ").filter(|part| !part.is_empty()).map(|part| part.parse().expect("a number")).collect()
    };
    table.texts(name).iter().map(inner).map(numbers).collect()
}

/// t of 95% with 13 degrees of freedom: SciPy.
const T13: f64 = 2.1603686564627913;

#[test]
fn covariances_and_intervals_agree_with_standard_errors() {
    let folder = Folder::new();
    let flags = [&["fit", SWEEP], &SWEEP_FIT[..], &["--covariance", "--level", "0.95", "--bound", "E=2:"]].concat();
    let fits = made(&folder, "fits.parquet", &flags);
    let covariances = lists(&fits, "covariance");
    let mut pinned = 0;
    for (row, covariance) in covariances.iter().enumerate() {
        assert_eq!(covariance.len(), 6, "row {row}: a lower triangle of three parameters");
        // Rounded once more on its way through the text.
        for (parameter, place) in [("E", 0), ("A", 2), ("alpha", 5)] {
            let error = fits.numbers(&format!("{parameter}_se"))[row];
            match error.is_nan() {
                true => assert_eq!(covariance[place], 0.0, "row {row}: {parameter} is pinned"),
                false => assert!(relative(covariance[place].sqrt(), error) < 1e-12, "row {row}: {parameter}"),
            }
        }
        pinned += usize::from(fits.numbers("E_se")[row].is_nan());
        if covariance[2] == 0.0 || covariance[5] == 0.0 {
            continue;
        }
        let correlation = covariance[4] / (covariance[2] * covariance[5]).sqrt();
        assert!(correlation > 0.0 && correlation <= 1.0, "row {row}: A and alpha rise together, {correlation}");
    }
    assert!(pinned > 100, "the bound holds {pinned} floors");
    let points = fits.numbers("points");
    let row =
        (0..fits.rows).find(|&row| points[row] == 16.0 && !fits.numbers("E_se")[row].is_nan()).expect("16 points");
    let [low, high, centre, error] = ["alpha_lo", "alpha_hi", "alpha", "alpha_se"].map(|name| fits.numbers(name)[row]);
    assert!(relative(high - centre, T13 * error) < 1e-9 && relative(centre - low, T13 * error) < 1e-9);
}

#[test]
fn a_fit_without_freedom_has_no_covariance_and_no_interval() {
    let folder = Folder::new();
    let data = folder.text("three.csv", "x,y\n1,5\n10,3\n100,2.5\n");
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y"];
    let fits = made(&folder, "f.parquet", &[&["fit", &data], &law[..], &["--covariance", "--level", "0.9"]].concat());
    assert_eq!(lists(&fits, "covariance"), [Vec::<f64>::new()]);
    assert!(fits.number("E_lo").is_nan() && fits.number("E").is_finite());
    let at = made(&folder, "p.parquet", &["predict", &folder.file("f.parquet"), "--at", "x=1000"]);
    assert!(at.number("predicted").is_finite() && at.number("mean_lo").is_nan() && at.number("new_hi").is_nan());
}

#[test]
#[cfg_attr(not(shared_data), ignore = "needs ../shared/data")]
fn gadre_is_predicted_as_published() {
    let folder = Folder::new();
    let data = shared("gadre_rpj.parquet");
    let flags = [
        "fit",
        &data,
        "--where",
        &gadre_filter(),
        "--law",
        GADRE_LAW,
        "--space",
        "linear",
        "--by",
        "eval_set",
        "--covariance",
    ];
    made(&folder, "fits.parquet", &flags);
    let predicted = made(&folder, "p.parquet", &["predict", &folder.file("fits.parquet"), "--at", &data]);
    let table = Table::read(Path::new(&data));
    let wanted: Vec<(usize, f64)> = (0..table.rows)
        .filter(|&row| table.texts("eval_set")[row] == "c4_val")
        .map(|row| (row, table.numbers("loss")[row]))
        .collect();
    assert_eq!(predicted.rows, wanted.len(), "every row of the fitted key, and no other");
    for (model, multiplier, published) in [("open_lm_1b", 640.0, 0.7103), ("open_lm_7b", 20.0, 0.7320)] {
        let row = (0..predicted.rows).find(|&row| {
            let (at, _) = wanted[row];
            table.texts("model")[at] == model && table.numbers("token_multiplier")[at] == multiplier
        });
        let error = 100.0 * predicted.numbers("relative_error")[row.expect("a published point")].abs();
        assert!((error - published).abs() < 5e-5, "{model}: {error}%, published {published}%");
    }
}

#[test]
#[cfg_attr(not(shared_data), ignore = "needs ../shared/data")]
fn chinchilla_allocates_as_published() {
    let folder = Folder::new();
    let data = shared("chinchilla.parquet");
    let law = ["--law", "chinchilla", "--x", "params,tokens", "--y", "loss", "--loss", "huber:1e-3"];
    let only = ["--where", "not excluded_outlier", "--covariance"];
    let fits = made(&folder, "fits.parquet", &[&["fit", &data], &law[..], &only].concat());
    let path = folder.file("fits.parquet");
    let rules = ["--rule", "D=20*N", "--rule", "params=7e10"];
    let plan = made(&folder, "plan.parquet", &[&["allocate", &path, "--flops", "5.76e23"], &rules[..]].concat());
    let [a, b, alpha, beta] = ["A", "B", "alpha", "beta"].map(|name| fits.number(name));
    let exponent = plan.number("params_exponent");
    assert!((exponent - 0.5139).abs() < 5e-5 && relative(exponent, beta / (alpha + beta)) < 1e-9, "{exponent}");
    assert!(plan.number("params_exponent_lo") < 0.513 && plan.number("params_exponent_hi") > 0.513);
    // Closed form: N = G (C/6)^(β/(α+β)), G = (αA/βB)^(1/(α+β)).
    let scale = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta));
    let closed = scale * (5.76e23f64 / 6.0).powf(beta / (alpha + beta));
    let [params, tokens, ratio] = ["params", "tokens", "ratio"].map(|name| plan.number(name));
    assert!(relative(params, closed) < 1e-9, "{params}, closed form {closed}");
    assert!(relative(plan.number("G"), scale) < 1e-12 && plan.number("G_lo") < scale && scale < plan.number("G_hi"));
    assert!(relative(params, 7.3e10) < 0.01 && relative(tokens, 1.31e12) < 0.01 && (ratio - 17.9).abs() < 0.05);
    assert!(relative(6.0 * params * tokens, 5.76e23) < 1e-12);
    for name in ["params", "tokens", "ratio", "predicted"] {
        let [low, value, high] =
            [format!("{name}_lo"), name.into(), format!("{name}_hi")].map(|name| plan.number(&name));
        assert!(low < value && value < high, "{name}: {low} {value} {high}");
    }
    assert!(plan.number("regret_1") > 0.0 && plan.number("regret_1") < 1e-4 && plan.number("regret_2") > 0.0);
    for method in ["isoflop", "envelope"] {
        let flags = [
            "--method",
            method,
            "--x",
            "params,tokens",
            "--y",
            "loss",
            "--by",
            "curve",
            "--where",
            "not excluded_outlier",
        ];
        let out = folder.file("raw.parquet");
        let ran = run(&[&["allocate", &data, "--flops", "5.76e23"], &flags[..], &["-o", &out]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("biased"), "{method} says what is wrong with it: {}", ran.stderr);
        let raw = Table::read(Path::new(&out));
        let [low, high] = ["params_exponent_lo", "params_exponent_hi"].map(|name| raw.number(name));
        assert!(low < 0.5139 && 0.5139 < high, "{method}: {low} to {high}");
    }
}

/// Sweeps whose forecasts are held against the truth: recipe, fit, where, and ten times the largest scale.
const FORECASTS: [(&str, &str, &str); 3] = [
    (
        "--law saturating_power --points 32 --x x=1:1e4 --param E=1.5:2.5 --param A=5:15 --param alpha=0.2:0.6",
        "--law saturating_power --x x --y y",
        "x=1e5",
    ),
    (
        "--law chinchilla --points 60 --x N=1e7:1e10 --x D=1e9:1e12 --param E=1.5:2 --param A=300:500 \
         --param B=300:3000 --param alpha=0.3:0.4 --param beta=0.3:0.4",
        "--law chinchilla --x N,D --y y",
        "N=1e11,D=1e13",
    ),
    (
        "--law broken_power --points 32 --x x=1:1e4 --param A=1:5 --param x_b=30:300:log --param alpha=0.05:0.2 \
         --param eta=0.4:0.8 --param Delta=0.1:0.5",
        "--law broken_power --x x --y y",
        "x=1e5",
    ),
];

#[test]
fn intervals_at_ten_times_the_largest_scale_cover_as_often_as_they_say() {
    for (recipe, law, at) in FORECASTS {
        let folder = Folder::new();
        let truth_path = folder.file("truth.parquet");
        let recipe = format!("{recipe} --curves 2000 --noise 0.01 --seed 11 --truth {truth_path}");
        let sweep = generated(&folder, "sweep.parquet", &recipe);
        let flags = [&["fit", &sweep, "--by", "curve", "--covariance", "-q"][..], &words(law)].concat();
        let fits = made(&folder, "fits.parquet", &flags);
        let path = folder.file("fits.parquet");
        let forecast = made(&folder, "forecast.parquet", &["predict", &path, "--at", at, "-q"]);
        let truth = Table::read(Path::new(&truth_path));
        let t = |name: &str, row: usize| truth.numbers(name)[row];
        let (mut mean, mut new, mut judged) = (0.0, 0.0, 0.0);
        for row in 0..truth.rows {
            let y = match law.split_whitespace().nth(1) {
                Some("saturating_power") => t("E", row) + t("A", row) * 1e5f64.powf(-t("alpha", row)),
                Some("chinchilla") => {
                    t("E", row)
                        + t("A", row) * 1e11f64.powf(-t("alpha", row))
                        + t("B", row) * 1e13f64.powf(-t("beta", row))
                }
                _ => {
                    let (z, width) = (1e5 / t("x_b", row), t("Delta", row));
                    t("A", row)
                        * z.powf(-t("alpha", row))
                        * (1.0 + z.powf(1.0 / width)).powf(-width * (t("eta", row) - t("alpha", row)))
                }
            };
            let [a, b, c, d] = ["mean_lo", "mean_hi", "new_lo", "new_hi"].map(|name| forecast.numbers(name)[row]);
            if fits.texts("status")[row] != "converged" || a.is_nan() {
                continue;
            }
            judged += 1.0;
            mean += f64::from(u8::from(a <= y && y <= b));
            let measured = y * (0.01 * normal(row)).exp();
            new += f64::from(u8::from(c <= measured && measured <= d));
            assert!(c < a && b < d, "{law}, row {row}: a new measurement is less sure than the law");
        }
        assert!(judged >= 1900.0, "{law}: {judged} curves converged");
        // Three standard errors of a share of 0.95 in 2,000 are 0.0146.
        for (what, share) in [("mean", mean / judged), ("new", new / judged)] {
            println!("{law}, {at}: {what} {share:.4} of {judged}");
            assert!((0.93..=0.97).contains(&share), "{law}: {what} covers {share} of {judged}");
        }
    }
}

/// A standard normal draw that depends on `row` alone; not the generator's own.
fn normal(row: usize) -> f64 {
    let mut state = row as u64 * 0x2545_f491_4f6c_dd1d + 99;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..48).map(|_| unit()).sum::<f64>() / 2.0 - 12.0
}

#[test]
fn shapes_are_named_and_what_lies_below_the_noise_is_not() {
    for (shape, recipe) in [
        ("power", "--law power --param a=2:20 --param p=-0.5:-0.05"),
        ("saturating_power", "--law saturating_power --param E=1.5:2.5 --param A=10:100 --param alpha=0.2:0.7"),
        (
            "broken_power",
            "--law broken_power --param A=1:5 --param x_b=2e3:5e4:log --param alpha=0.05:0.2 --param eta=0.4:0.8 --param \
             Delta=0.05:0.5",
        ),
        ("exponential", "--law exponential --param y0=1:5 --param gamma=5e-7:5e-6"),
        ("logarithmic", "--law logarithmic --param a=3:5 --param b=-0.2:-0.1"),
        ("cannot_tell", "--law saturating_power --param E=1.5:2.5 --param A=0.003:0.01 --param alpha=0.3:0.6"),
    ] {
        let folder = Folder::new();
        let recipe = format!("{recipe} --curves 1000 --points 24:40 --x x=1e2:1e6 --noise 0.005 --seed 5");
        let sweep = generated(&folder, "sweep.parquet", &recipe);
        let flags = ["diagnose", &sweep, "--x", "x", "--y", "y", "--by", "curve", "-q"];
        let found = made(&folder, "d.parquet", &flags);
        let right = found.texts("shape").iter().filter(|name| *name == shape).count();
        assert!(right >= 950, "{shape}: {right} of 1000 are named so");
    }
}

#[test]
fn three_points_that_fall_by_a_constant_step_are_a_logarithm() {
    let folder = Folder::new();
    let data = folder.text("three.csv", "x,y\n1e7,2.1\n1e8,1.8\n1e9,1.5\n");
    let ran = run(&["diagnose", &data, "--x", "x", "--y", "y", "-o", &folder.file("d.parquet")]);
    for part in
        ["constant step of 0.300 for every factor of ten", "not a power law with a floor", "3 points cannot tell"]
    {
        assert!(ran.stderr.contains(part), "{part}\n{}", ran.stderr);
    }
    assert_eq!(Table::read(&folder.path("d.parquet")).texts("shape"), ["logarithmic"]);
    let data = folder.text("two.csv", "x,y\n1,2\n,3\n5,-1\n");
    let found = made(&folder, "e.parquet", &["diagnose", &data, "--x", "x", "--y", "y", "-q"]);
    assert_eq!((found.texts("shape"), found.number("points")), (&["cannot_tell".to_string()][..], 1.0));
    assert_eq!(found.number("left_out"), 2.0);
}

#[test]
fn what_binds_agrees_with_the_slopes_of_the_law() {
    let folder = Folder::new();
    let recipe = "--law chinchilla --curves 3 --x N=1e7:1e10:6 --x D=1e9:1e12:6 --param E=1.7 --param A=400 --param B=1500 \
                  --param alpha=0.34 --param beta=0.37 --noise 0";
    let sweep = generated(&folder, "sweep.parquet", recipe);
    let found = made(&folder, "b.parquet", &["diagnose", &sweep, "--x", "N,D", "--y", "y", "--by", "curve", "-q"]);
    let law = |n: f64, d: f64| 1.7 + 400.0 * n.powf(-0.34) + 1500.0 * d.powf(-0.37);
    assert_eq!(found.rows, 108);
    for row in 0..found.rows {
        let [n, d, share_n, share_d, gain_n, gain_d] =
            ["N", "D", "N_share", "D_share", "N_gain", "D_gain"].map(|name| found.numbers(name)[row]);
        assert!((share_n + share_d - 1.0).abs() < 1e-12, "row {row}: shares sum to 1");
        // −∂L/∂log N = α·(share of N)·(L − E), by a central difference.
        let step = 1e-4f64;
        let slope = (law(n * (-step).exp(), d) - law(n * step.exp(), d)) / (2.0 * step);
        assert!(relative(0.34 * share_n * (law(n, d) - 1.7), slope) < 1e-6, "row {row}: {slope}");
        for (gain, drop) in [(gain_n, law(n, d) - law(2.0 * n, d)), (gain_d, law(n, d) - law(n, 2.0 * d))] {
            assert!(relative(gain, drop) < 1e-6, "row {row}: {gain}, the law falls by {drop}");
        }
        assert_eq!(found.texts("binds")[row], if gain_n >= gain_d { "N" } else { "D" });
    }
}

/// Fits of a formula with brackets on both sides, a quoted column and names that differ in case only.
#[test]
fn laws_are_read_back_from_the_metadata_as_they_were_fitted() {
    let folder = Folder::new();
    let mut text = String::from("run,my x,q,y\n");
    for run in ["u", "v"] {
        for i in 1..20 {
            let x = 1.7f64.powi(i);
            let y = ((2.0 + 9.0 * x.powf(-0.5)) * (1.0 + 0.003 * normal(i as usize + run.len()))).exp_m1();
            text += &format!("{run},{x},{},{y}\n", 1.0 + 0.1 * f64::from(i % 3));
        }
    }
    let data = folder.text("data.csv", &text);
    let brackets = "(log1p(y))/1 ~ (E + A*`my x`^-alpha)*(1 + 0*q)";
    let flags =
        ["fit", &data, "--law", brackets, "--space", "linear", "--by", "run", "--fix", "alpha=0.5", "--covariance"];
    let fits = made(&folder, "fits.parquet", &flags);
    let path = folder.file("fits.parquet");
    let at = made(&folder, "p.parquet", &["predict", &path, "--at", "my x=100,q=1"]);
    for row in 0..2 {
        let [e, a] = ["E", "A"].map(|name| fits.numbers(name)[row]);
        let expected = e + a * 100f64.powf(-0.5);
        let found = at.numbers("predicted")[row];
        assert!(relative(found, expected) < 1e-12, "{found}, by hand {expected}");
        assert!(at.numbers("mean_lo")[row] < found && found < at.numbers("mean_hi")[row]);
        // J C Jᵀ by hand: the slopes are 1, x^-½ and, for the fixed exponent, nothing.
        let covariance = &lists(&fits, "covariance")[row];
        let variance = covariance[0] + 2.0 * 0.1 * covariance[1] + 0.01 * covariance[2];
        let half = at.numbers("mean_hi")[row] - found;
        let t = 2.1098155778333156; // 17 degrees of freedom, SciPy
        assert!(relative(half, t * variance.sqrt()) < 1e-6, "{half}");
    }
    let renamed = ["--law", "power", "--law", "saturating_power", "--x", "tokens", "--y", "loss", "--by", "run"];
    let fits = made(&folder, "two.parquet", &[&["fit", SWEEP], &renamed[..], &["--covariance", "-q"]].concat());
    let at = made(&folder, "q.parquet", &["predict", &folder.file("two.parquet"), "--at", "x=1e12", "-q"]);
    assert_eq!(
        (at.rows, at.names.as_slice()),
        (1000, &["run", "law", "tokens", "predicted", "mean_lo", "mean_hi", "new_lo", "new_hi"].map(String::from)[..])
    );
    for row in 0..at.rows {
        let n = |name: &str| fits.numbers(name)[row];
        let expected = match fits.texts("law")[row].as_str() {
            "power" => n("power_a") * 1e12f64.powf(n("p")),
            _ => n("E") + n("saturating_power_A") * 1e12f64.powf(-n("alpha")),
        };
        assert!(relative(at.numbers("predicted")[row], expected) < 1e-9, "row {row}");
    }
}

#[test]
fn every_law_of_the_catalogue_predicts_what_its_formula_says() {
    let folder = Folder::new();
    for (count, recipe) in [
        (1, "--law saturating_power --x x=10:1e4 --param E=2 --param A=20 --param alpha=0.4"),
        (
            2,
            "--law chinchilla --x N=1e6:1e9 --x D=1e8:1e11 --param E=1.7 --param A=400 --param B=1500 --param alpha=0.34 \
             --param beta=0.37",
        ),
    ] {
        let recipe = format!("{recipe} --curves 5 --points 40 --noise 0.01");
        let sweep = generated(&folder, "sweep.parquet", &recipe);
        let (x, at, values) = match count {
            1 => ("x", "x=321", vec![321.0]),
            _ => ("N,D", "N=3e7,D=2e9", vec![3e7, 2e9]),
        };
        let flags = ["fit", &sweep, "--law", "all", "--x", x, "--y", "y", "--by", "curve", "--covariance", "-q"];
        let fits = made(&folder, "fits.parquet", &flags);
        let found = made(&folder, "p.parquet", &["predict", &folder.file("fits.parquet"), "--at", at, "-q"]);
        assert_eq!(found.rows, fits.rows);
        let (mut judged, mut sure) = (0, 0);
        for row in 0..fits.rows {
            let name = &fits.texts("law")[row];
            let entry = catalogue::find(name).expect("a law of the catalogue");
            let columns: Vec<String> = x.split(',').chain(["y"]).map(String::from).collect();
            let mapping = Mapping { x: &columns[..count], y: Some("y") };
            let law = Law::bind(entry.name, &columns, mapping).expect(name);
            let value = |parameter: &String| {
                let column = [parameter.clone(), format!("{name}_{parameter}")];
                column.iter().find(|column| fits.names.contains(column)).map(|column| fits.numbers(column)[row])
            };
            let theta: Vec<f64> = law.parameters.iter().map(|p| value(p).expect("a column")).collect();
            if !["converged", "at_bound"].contains(&fits.texts("status")[row].as_str()) {
                continue;
            }
            let place = |name: &String| columns.iter().position(|own| own == name).filter(|&k| k < count);
            let inputs: Vec<f64> = law.columns.iter().map(|name| place(name).map_or(f64::NAN, |k| values[k])).collect();
            let expected = law.graph.evaluate(law.prediction, &inputs, &theta);
            let predicted = found.numbers("predicted")[row];
            assert!(relative(predicted, expected) < 1e-9, "{name}: {predicted}, its formula says {expected}");
            judged += 1;
            sure += usize::from(found.numbers("mean_hi")[row] > predicted);
        }
        assert!(
            judged * 2 > fits.rows && sure * 10 >= judged * 9,
            "{sure} of {judged} of {} have intervals",
            fits.rows
        );
    }
}

#[test]
fn a_table_of_points_is_joined_on_its_keys_and_calibration_reports_what_it_reached() {
    let folder = Folder::new();
    made(&folder, "fits.parquet", &[&["fit", SWEEP], &SWEEP_FIT[..], &["--covariance", "-q"]].concat());
    let path = folder.file("fits.parquet");
    let predict = |name: &str, threads: &str| -> (Ran, Vec<u8>) {
        let out = folder.file(name);
        let ran = run(&["predict", &path, "--at", SWEEP, "--calibrate", SWEEP, "--threads", threads, "-o", &out]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (ran, std::fs::read(out).expect("the table"))
    };
    let ((ran, one), (_, two)) = (predict("p.parquet", "1"), predict("r.parquet", "2"));
    assert!(one == two, "threads change no byte");
    let sweep = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    let found = Table::read(&folder.path("p.parquet"));
    assert_eq!(found.rows, sweep.rows);
    assert_eq!(found.numbers("observed"), sweep.numbers("loss"));
    assert!(ran.stderr.contains("saturating_power: calibrated on 500 curves"), "{}", ran.stderr);
    let factor: f64 = ran
        .stderr
        .split("factor ")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .expect("a factor")
        .parse()
        .expect("a number");
    // The sweep follows its law, so there is little to calibrate.
    assert!((0.7..1.5).contains(&factor), "{factor}");
    assert!(found.metadata["sweepfit.predict.calibration"].contains("factor"));
    // Without keys every fit meets every row.
    let points = folder.text("points.csv", "tokens\n1e9\n1e10\n1e11\n");
    assert_eq!(made(&folder, "s.parquet", &["predict", &path, "--at", &points, "-q"]).rows, 1500);
}

#[test]
fn intervals_come_from_draws_where_they_are_given() {
    let folder = Folder::new();
    let fits = made(&folder, "fits.parquet", &[&["fit", SWEEP], &SWEEP_FIT[..], &["-q"]].concat());
    let path = folder.file("fits.parquet");
    // Forty draws for the first three runs: the floor moves, the rest stays.
    let mut text = String::from("run,law,replicate,E,A,alpha\n");
    for row in 0..3 {
        let [e, a, alpha] = ["E", "A", "alpha"].map(|name| fits.numbers(name)[row]);
        for draw in 0..=40 {
            let moved = e + 0.01 * (f64::from(draw) - 20.0) / 20.0;
            text += &format!("{},saturating_power,{draw},{moved:?},{a:?},{alpha:?}\n", fits.texts("run")[row]);
        }
    }
    let draws = folder.text("draws.csv", &text);
    let flags = ["predict", &path, "--at", "tokens=1e11", "--draws", &draws, "--level", "0.9", "-q"];
    let found = made(&folder, "p.parquet", &flags);
    for row in 0..3 {
        let [low, value, high] = ["mean_lo", "predicted", "mean_hi"].map(|name| found.numbers(name)[row]);
        assert!((high - value - 0.009).abs() < 1e-9 && (value - low - 0.009).abs() < 1e-9, "{low} {value} {high}");
    }
    assert!(found.numbers("predicted")[3].is_finite() && found.numbers("mean_lo")[3].is_nan(), "no draws, no interval");
    let lines: Vec<&str> = text.lines().collect();
    let turned = [&lines[..1], &lines[42..83], &lines[1..42]].concat().join("\n");
    let turned = folder.text("turned.csv", &turned);
    let ran = run(&["predict", &path, "--at", "tokens=1e11", "--draws", &turned, "-o", &folder.file("x.parquet")]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("do not follow the fits"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_known_is_null_and_said() {
    let folder = Folder::new();
    // Two points, a fit, a constant input, and as many points as parameters.
    let data = folder.text(
        "few.csv",
        "run,x,y\na,1,5\na,2,3\nb,1,5\nb,2,3\nb,4,2.5\nb,8,2.2\nb,16,2.1\nc,3,2\nc,3,2.1\nc,3,2.2\nd,1,5\nd,2,3\nd,4,2.5\n",
    );
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "run"];
    let judged = made(&folder, "judged.parquet", &[&["fit", &data], &law[..], &["--select", "holdout:0.6"]].concat());
    assert_eq!(judged.texts("best"), ["false"; 4], "two points left do not make a fit of three parameters");
    assert!(judged.numbers("holdout_rmse").iter().all(|error| error.is_nan()));
    let flags = ["--covariance", "--level", "0.9"];
    let fits = made(&folder, "fits.parquet", &[&["fit", &data], &law[..], &flags].concat());
    assert_eq!(fits.texts("status"), ["too_few_points", "converged", "degenerate", "converged"]);
    for name in ["alpha_se", "alpha_lo"] {
        let known: Vec<bool> = fits.numbers(name).iter().map(|value| value.is_finite()).collect();
        assert_eq!(known, [false, true, false, false], "{name}");
    }
    let path = folder.file("fits.parquet");
    let told = |arguments: &[&str], parts: &[&str]| {
        let ran = run(&[arguments, &["-o", &folder.file("out.parquet")]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{arguments:?}: {part}\n{}", ran.stderr);
        }
        Table::read(&folder.path("out.parquet"))
    };
    for x in ["x=-5", "x=0"] {
        let parts =
            ["2 are null: the curve could not be fitted", "2 are null: the point lies outside the law's domain"];
        let at = told(&["predict", &path, "--at", x], &parts);
        assert!(["predicted", "mean_lo", "new_hi"].iter().all(|name| at.numbers(name).iter().all(|v| v.is_nan())));
    }
    let next = ["next", &path, "--budget", "9", "--cost", "x"];
    let parts = ["for 1 of 4 fits", "none for 3: no fit, or no covariance"];
    assert_eq!(told(&[&next[..], &["--target", "x=100"]].concat(), &parts).rows, 4);
    let outside = ["--target", "x=-1", "--candidates", "x=1:9:3"];
    let parts = ["0 runs", "none for 1: the target lies outside the law's domain"];
    assert_eq!(told(&[&next[..], &outside].concat(), &parts).rows, 0);
    let dear = ["--target", "x=100", "--candidates", "x=10:90:3"];
    told(&[&next[..], &dear].concat(), &["none for 1: no candidate is within the budget"]);
    let words = told(&["diagnose", &data, "--x", "x", "--y", "y", "--by", "run"], &[]);
    assert!(words.texts("words")[2].contains("at one x") && words.numbers("reach")[2].is_nan());

    let recipe = "--law chinchilla --curves 1 --points 20 --x N=1e7:1e10 --x D=1e9:1e12 --param E=1.7 --param A=400 --param \
                  B=1500 --param alpha=0.34 --param beta=0.37";
    let sweep = generated(&folder, "sweep.parquet", recipe);
    let two = ["fit", &sweep, "--law", "chinchilla", "--x", "N,D", "--y", "y", "--by", "curve", "--covariance", "-q"];
    made(&folder, "two.parquet", &two);
    let two = folder.file("two.parquet");
    let plan =
        told(&["allocate", &two, "--flops", "1e22", "--rule", "D=-N"], &["1 budgets cannot be spent by the rule D=-N"]);
    assert!(plan.number("N").is_finite() && plan.number("regret").is_nan());
    let plan = told(&["allocate", &two, "--flops", "1e22", "--cost", "N-D"], &["1 are null", "may not rise with both"]);
    assert!(plan.number("N").is_nan() && plan.number("N_lo").is_nan() && plan.number("predicted").is_nan());
}

/// Writes a table of fits again with one more column, metadata and all.
fn with_evidence(from: &Path, to: &Path, evidence: Vec<f64>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(from).expect("fits")).expect("Parquet");
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned();
    let batch = reader.with_batch_size(evidence.len()).build().expect("a reader").next().expect("rows").expect("rows");
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut columns: Vec<(&str, ArrayRef)> =
        names.iter().map(String::as_str).zip(batch.columns().iter().cloned()).collect();
    columns.push(("evidence", Arc::new(Float64Array::from(evidence))));
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let metadata = metadata.map(|pairs| pairs.into_iter().filter(|pair| pair.key.starts_with("sweepfit.")).collect());
    let properties = WriterProperties::builder().set_key_value_metadata(metadata).build();
    let mut writer =
        ArrowWriter::try_new(File::create(to).expect("a file"), batch.schema(), Some(properties)).expect("");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
}

#[test]
fn laws_are_averaged_by_their_evidence() {
    let folder = Folder::new();
    let laws = ["--law", "power", "--law", "saturating_power", "--x", "tokens", "--y", "loss", "--by", "run"];
    let fits = made(&folder, "fits.parquet", &[&["fit", SWEEP], &laws[..], &["--covariance", "-q"]].concat());
    let weights = (0..fits.rows).map(|row| if row % 2 == 0 { 0.25 } else { 0.75 }).collect();
    with_evidence(&folder.path("fits.parquet"), &folder.path("weighted.parquet"), weights);
    let path = folder.file("weighted.parquet");
    let found = made(&folder, "p.parquet", &["predict", &path, "--at", "tokens=1e11", "--at", "tokens=1e12", "-q"]);
    assert_eq!(found.rows, 3000);
    assert_eq!(
        found.texts("law")[..6].iter().map(String::as_str).collect::<Vec<_>>(),
        ["power", "power", "saturating_power", "saturating_power", "average", "average"]
    );
    let n = |name: &str, row: usize| found.numbers(name)[row];
    for point in 0..2 {
        let expected = 0.25 * n("predicted", point) + 0.75 * n("predicted", 2 + point);
        assert!(relative(n("predicted", 4 + point), expected) < 1e-12);
        let half = |row: usize| (n("mean_hi", row) / n("mean_lo", row)).ln() / 2.0;
        let least = 0.25 * half(point) + 0.75 * half(2 + point);
        assert!(half(4 + point) > least, "laws that disagree make the average less sure");
        assert_eq!(n("tokens", 4 + point), n("tokens", point));
    }
}

#[test]
fn known_standard_deviations_say_nothing_about_a_measurement_of_unknown_one() {
    let folder = Folder::new();
    let mut text = String::from("x,y,s\n");
    for i in 1..20 {
        let x = 2f64.powi(i);
        text += &format!("{x},{},0.05\n", 2.0 + 10.0 * x.powf(-0.5) + 0.05 * normal(i as usize));
    }
    let data = folder.text("data.csv", &text);
    let law =
        ["--law", "saturating_power", "--x", "x", "--y", "y", "--sigma", "s", "--space", "linear", "--covariance"];
    made(&folder, "fits.parquet", &[&["fit", &data], &law[..]].concat());
    let path = folder.file("fits.parquet");
    let at = made(&folder, "p.parquet", &["predict", &path, "--at", "x=1e7"]);
    assert!(at.number("mean_lo").is_finite() && at.number("new_lo").is_nan());
    let at = made(&folder, "q.parquet", &["predict", &path, "--at", "x=1e7,s=0.05"]);
    let [mean, new] = ["mean_hi", "new_hi"].map(|name| at.number(name) - at.number("predicted"));
    let t = 2.1199052992212546; // 16 degrees of freedom, SciPy
    assert!(relative(new, mean.hypot(t * 0.05)) < 1e-9, "{mean} {new}");
}

#[test]
fn the_next_run_takes_most_off_the_variance() {
    let folder = Folder::new();
    let recipe =
        "--law saturating_power --curves 4 --points 12 --x x=1e2:1e5 --param E=2 --param A=20 --param alpha=0.4";
    let sweep = generated(&folder, "sweep.parquet", recipe);
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve", "--covariance"];
    let fits = made(&folder, "fits.parquet", &[&["fit", &sweep], &law[..]].concat());
    let path = folder.file("fits.parquet");
    let flags = ["--target", "x=1e7", "--budget", "1e9", "--cost", "x", "--candidates", "x=1e3:1e6:4", "--rank", "run"];
    let design = made(&folder, "n.parquet", &[&["next", &path], &flags[..], &["--runs", "2"]].concat());
    assert_eq!(design.rows, 8);
    for curve in 0..4 {
        let row = 2 * curve;
        // By hand: C − C g gᵀ C/(s² + gᵀ C g) over the four candidates, in log space.
        let [e, a, alpha] = ["E", "A", "alpha"].map(|name| fits.numbers(name)[curve]);
        let slopes = |x: f64| {
            let power = x.powf(-alpha);
            let f = e + a * power;
            [1.0 / f, power / f, -a * power * x.ln() / f]
        };
        let packed = &lists(&fits, "covariance")[curve];
        let at = |i: usize, j: usize| packed[if i >= j { i * (i + 1) / 2 + j } else { j * (j + 1) / 2 + i }];
        let product = |g: &[f64; 3], h: &[f64; 3]| -> f64 {
            (0..3).map(|i| (0..3).map(|j| g[i] * at(i, j) * h[j]).sum::<f64>()).sum()
        };
        let goal = slopes(1e7);
        let scatter = 2.0 * fits.numbers("objective")[curve] / 9.0;
        let after = |x: f64| {
            let g = slopes(x);
            product(&goal, &goal) - product(&goal, &g).powi(2) / (scatter + product(&g, &g))
        };
        let best = [1e3f64, 1e4, 1e5, 1e6].into_iter().min_by(|a, b| after(*a).total_cmp(&after(*b))).expect("four");
        assert!(relative(design.numbers("x")[row], best) < 1e-9, "curve {curve}");
        assert!(relative(design.numbers("sd_before")[row], product(&goal, &goal).sqrt()) < 1e-6);
        assert!(relative(design.numbers("sd_after")[row], after(best).sqrt()) < 1e-6);
        assert_eq!(design.numbers("sd_before")[row + 1], design.numbers("sd_after")[row]);
        assert!(design.numbers("spent")[row + 1] > design.numbers("spent")[row]);
    }
}

#[test]
fn bad_requests_are_refused_with_the_repair() {
    let folder = Folder::new();
    let law = [&["fit", SWEEP], &SWEEP_FIT[..], &["-q"]].concat();
    made(&folder, "bare.parquet", &law);
    made(&folder, "fits.parquet", &[&law[..], &["--covariance"]].concat());
    let recipe = "--law chinchilla --curves 2 --points 20 --x N=1e7:1e10 --x D=1e9:1e12 --param E=1.7 --param A=400 --param \
                  B=1500 --param alpha=0.34 --param beta=0.37";
    let sweep = generated(&folder, "sweep.parquet", recipe);
    let two = ["fit", &sweep, "--law", "chinchilla", "--x", "N,D", "--y", "y", "--by", "curve", "--covariance", "-q"];
    made(&folder, "two.parquet", &two);
    let (bare, fits, two) = (folder.file("bare.parquet"), folder.file("fits.parquet"), folder.file("two.parquet"));
    let draws = folder.file("power_draws.parquet");
    let power = ["fit", SWEEP, "--law", "power", "--x", "tokens", "--y", "loss", "--by", "run", "-q"];
    made(&folder, "power.parquet", &[&power[..], &["--bootstrap", "2", "--draws", &draws]].concat());
    let other = folder.text("other.csv", "run,steps\na,1\n");
    let strange = folder.text("strange.csv", "run,tokens\nnobody,1e9\n");
    for (arguments, parts) in [
        (vec!["predict", SWEEP, "--at", "tokens=1e9"], &["no table of fits", "sweepfit fit"][..]),
        (vec!["predict", "nowhere.parquet", "--at", "tokens=1e9"], &["nowhere.parquet", "no such file"]),
        (vec!["predict", &bare, "--at", "tokens=1e9"], &["no column \"covariance\"", "--covariance", "--no-intervals"]),
        (vec!["predict", &fits, "--at", "steps=1e9"], &["column \"tokens\"", "saturating_power", "steps"]),
        (vec!["predict", &fits, "--at", "tokens=big"], &["\"big\" is not a number"]),
        (vec!["predict", &fits, "--at", "tokens=1,tokens=2"], &["tokens is given twice"]),
        (vec!["predict", &fits, "--at", "missing.parquet"], &["missing.parquet"]),
        (vec!["predict", &fits, "--at", "tokens"], &["neither a table that is there nor a point such as tokens=1"]),
        (vec!["predict", &fits, "--at", "tokens=1,z=2"], &["z is neither an input", "(tokens)"]),
        (vec!["predict", &fits, "--at", "tokens=1,x=2"], &["tokens and x are one input of saturating_power"]),
        (vec!["predict", &fits, "--at", "tokens=1", "--draws", &draws], &["power_draws.parquet: column \"E\""]),
        (vec!["allocate", &two, "--flops", "1e20", "--draws", &draws], &["power_draws.parquet: column"]),
        (vec!["next", &two, "--target", "N=0,D=1e12", "--budget", "1e20"], &["no geometric axis leads to N = 0"]),
        (vec!["next", &two, "--target", "N=1,D=1", "--budget", "1", "--cost", "0*N"], &["above 0 at none"]),
        (vec!["predict", &fits, "--at", &other], &["column \"tokens\""]),
        (vec!["predict", &fits, "--at", &strange], &["no row of the table has the key of a fit"]),
        (vec!["predict", &fits, "--at", "tokens=1", "--draws", &other], &["\"replicate\" is not in the input"]),
        (vec!["predict", &fits, "--at", "tokens=1", "--calibrate", &other], &["column \"tokens\" is not in the input"]),
        (vec!["allocate", &fits, "--flops", "1e20"], &["1 input(s) (tokens)", "between two"]),
        (vec!["allocate", &two, "--flops", "1e20", "--cost", "6*N"], &["does not grow with D"]),
        (vec!["allocate", &two, "--flops", "1e20", "--cost", "6*N*Q"], &["\"Q\" is no input", "N, D"]),
        (vec!["allocate", &two, "--flops", "1e20", "--rule", "20*N"], &["give INPUT=FORMULA"]),
        (vec!["allocate", &two, "--flops", "1e20", "--rule", "D=20*D"], &["D stands on both sides"]),
        (vec!["allocate", &two, "--flops", "1e20", "--rule", "Q=20*D"], &["Q is no input"]),
        (vec!["allocate", &two, "--flops", "1e20", "--x", "N,D"], &["--method isoflop or envelope"]),
        (vec!["allocate", &sweep, "--flops", "1e20", "--method", "isoflop"], &["--x COL,COL"]),
        (vec!["allocate", &bare, "--flops", "1e20"], &["covariance"]),
        (vec!["next", &two, "--target", "N=1e10", "--budget", "1e20"], &["column \"D\"", "--target"]),
        (vec!["next", &fits, "--target", "tokens=1e12", "--budget", "1e20"], &["--cost FORMULA"]),
        (
            vec!["next", &two, "--target", "N=1e10,D=1e12", "--budget", "1e20", "--candidates", "Q=1:2:3"],
            &["inputs N, D"],
        ),
        (vec!["diagnose", SWEEP, "--x", "token", "--y", "loss"], &["\"token\"", "did you mean \"tokens\""]),
        (vec!["diagnose", SWEEP, "--x", "a,b,c", "--y", "loss"], &["one input, or two"]),
    ] {
        let out = folder.file("out.parquet");
        let ran = run(&[&arguments[..], &["-o", &out]].concat());
        assert_eq!(ran.code, 2, "{arguments:?}\n{}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{arguments:?}: {part}\n{}", ran.stderr);
        }
        assert!(!Path::new(&out).exists(), "{arguments:?} wrote a table");
    }
    for (arguments, part) in [
        (vec!["allocate", &two, "--flops=-1", "-o", "x"], "a budget is above 0"),
        (vec!["predict", &fits, "--at", "tokens=1", "--level", "95", "-o", "x"], "as in 0.95"),
        (
            vec!["next", &two, "--target", "N=1,D=1", "--budget", "1", "--candidates", "N=2:1:3", "-o", "x"],
            "0 < LO <= HI",
        ),
    ] {
        let ran = run(&arguments);
        assert!(ran.code == 2 && ran.stderr.contains(part), "{arguments:?}\n{}", ran.stderr);
    }
    let ran = run(&["predict", &fits, "--at", "tokens=1e9", "-o", &fits]);
    assert!(ran.code == 2 && ran.stderr.contains("is the input, too"), "{}", ran.stderr);
    for subcommand in ["predict", "allocate", "diagnose", "next"] {
        let ran = run(&[subcommand, "--help"]);
        assert!(ran.code == 0 && ran.stdout.contains(&format!("sweepfit {subcommand} ")), "{}", ran.stdout);
        assert!(ran.stdout.contains("Example") && ran.stdout.contains("Columns"), "{}", ran.stdout);
    }
}
