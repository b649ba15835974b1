//! The command line's contract: help, exit codes, what goes where, and what every option does to the answer.

use crate::support::{Folder, Ran, SWEEP, SWEEP_FIT, Table, command, fit, relative, run};
use std::path::Path;

/// Two runs on exact curves: 2 + 30 x^-0.5 and 1.5 + 20 x^-0.25.
fn exact() -> String {
    let mut text = String::from("run,x,y,s,w\n");
    for (run, floor, amplitude, exponent) in [("a", 2.0, 30.0, 0.5f64), ("b", 1.5, 20.0, 0.25)] {
        for x in (4..16).map(|power| f64::from(1 << power)) {
            text += &format!("{run},{x},{},0.1,1\n", floor + amplitude * x.powf(-exponent));
        }
    }
    text
}

const EXACT_FIT: [&str; 8] = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "run"];

#[test]
fn every_help_names_an_example() {
    for subcommand in ["fit", "run", "laws", "devices", "generate", "bench"] {
        let ran = run(&[subcommand, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{subcommand}");
        assert!(
            ran.stdout.contains("Example") && ran.stdout.contains(&format!("sweepfit {subcommand}")),
            "{subcommand}"
        );
    }
    let ran = run(&["--help"]);
    assert!(
        ["fit", "run", "laws", "devices", "generate", "bench"].iter().all(|name| ran.stdout.contains(name)),
        "{}",
        ran.stdout
    );
}

#[test]
fn laws_lists_the_catalogue_and_shows_each() {
    let list = run(&["laws"]).stdout;
    for entry in sweepfit::law::catalogue::CATALOGUE {
        assert!(list.contains(&format!("{} (", entry.name)), "{} is not listed", entry.name);
        let shown = run(&["laws", entry.name]).stdout;
        assert!(shown.contains(entry.formula), "{shown}");
        for parameter in entry.parameters {
            assert!(shown.contains(parameter.name), "{}: {shown}", parameter.name);
        }
    }
}

#[test]
fn the_example_of_every_law_works_as_it_stands() {
    let folder = Folder::new();
    for entry in sweepfit::law::catalogue::CATALOGUE {
        let shown = run(&["laws", entry.name]).stdout;
        let examples: Vec<&str> = shown.lines().map(str::trim).filter(|line| line.starts_with("sweepfit ")).collect();
        assert_eq!(examples.len(), 2, "{shown}");
        for example in examples {
            let arguments: Vec<&str> = example.split(' ').skip(1).collect();
            let ran: Ran = command(&arguments).current_dir(folder.path("")).output().expect("the binary starts").into();
            assert_eq!(ran.code, 0, "{example}\n{}", ran.stderr);
        }
        let fits = Table::read(&folder.path("fits.parquet"));
        assert_eq!(fits.rows, 100, "{}", entry.name);
        let fitted = ["converged", "at_bound", "iteration_limit"].map(|s| fits.statuses().get(s).copied().unwrap_or(0));
        // Two breaks, an exponential in a power that may have become a step, a term far below the other: noise of 1% leaves
        // these undetermined on some curves.
        let hard = ["bnsl2", "stretched_exponential", "weibull", "janoschek", "kaplan"];
        let least = if hard.contains(&entry.name) { 80 } else { 95 };
        assert!(fitted.iter().sum::<usize>() >= least, "{}: {:?}", entry.name, fits.statuses());
    }
}

#[test]
fn spellings_of_one_curve_share_its_verdict() {
    let names = ["stretched_exponential", "weibull", "janoschek", "hill", "mmf", "power"];
    let laws: Vec<&str> = names.iter().flat_map(|name| ["--law", name]).collect();
    let flags = [&laws[..], &["--x", "tokens", "--y", "loss", "--by", "run", "--where", "run < 'c00000040'"]].concat();
    let fits = fit(SWEEP, &flags);
    let value = |column: &str, row: usize| fits.numbers(column)[row];
    for first in (0..fits.rows).step_by(names.len()) {
        for (alias, of) in [(1, 0), (2, 0), (4, 3)] {
            let (alias, of) = (first + alias, first + of);
            assert_eq!(fits.texts("status")[alias], fits.texts("status")[of]);
            for column in ["objective", "rmse", "aicc", "basin_gap"] {
                assert_eq!(value(column, alias).to_bits(), value(column, of).to_bits(), "{column}");
            }
        }
        if fits.texts("status")[first] == "converged" {
            let (stretched, weibull, janoschek) = (first, first + 1, first + 2);
            assert_eq!(value("weibull_a", weibull), value("gamma", stretched));
            assert_eq!(value("b", weibull), -value("stretched_exponential_A", stretched));
            assert_eq!(value("d_se", weibull), value("beta_se", stretched));
            assert_eq!(value("janoschek_a_se", janoschek), value("E_se", stretched));
        }
    }
    // Asked for alone, a spelling says the same.
    let alone = fit(SWEEP, &[&["--law", "mmf"], &flags[2 * names.len()..]].concat());
    for row in 0..alone.rows {
        let shared = value("mmf_a", row * names.len() + 4);
        assert_eq!(alone.numbers("a")[row].to_bits(), shared.to_bits());
    }
}

#[test]
fn without_a_terminal_stderr_holds_the_summary_and_stdout_nothing() {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["-o", &out]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(ran.stderr.contains("500 curves of 17,431 rows\nsaturating_power: 500 converged"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\r') && !ran.stderr.contains('\u{1b}'), "no progress bar: {:?}", ran.stderr);
}

#[test]
fn quiet_says_nothing_but_errors() {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["-q", "-o", &out]].concat());
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let ran = run(&["fit", "nowhere.parquet", "--law", "power", "--x", "x", "--y", "y", "-q", "-o", &out]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.starts_with("error: nowhere.parquet"), "{}", ran.stderr);
}

#[test]
fn a_dash_writes_csv_to_stdout() {
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["-q", "-o", "-"]].concat());
    let header = "run,law,E,A,alpha,E_se,A_se,alpha_se,status,points,objective,rmse,r2,aicc,bic,basins,basin_gap,\
                  condition,at_bound";
    assert_eq!((ran.code, ran.stdout.lines().next(), ran.stdout.lines().count()), (0, Some(header), 501));
    assert!(ran.stdout.lines().skip(1).all(|line| line.split(',').count() == 19));
    let told = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["-o", "-"]].concat());
    assert!(told.stdout == ran.stdout && told.stderr.contains("\nstandard output in "), "{}", told.stderr);
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::Stdio;
    let mut child = command(&[&["fit", SWEEP], &SWEEP_FIT[..], &["-q", "-o", "-"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn columns_and_their_order_are_the_contract() {
    let folder = Folder::new();
    let fits = fit(&folder.text("exact.csv", &exact()), &EXACT_FIT);
    let names = [
        "run",
        "law",
        "E",
        "A",
        "alpha",
        "E_se",
        "A_se",
        "alpha_se",
        "status",
        "points",
        "objective",
        "rmse",
        "r2",
        "aicc",
        "bic",
        "basins",
        "basin_gap",
        "condition",
        "at_bound",
    ];
    assert_eq!(fits.names, names);
    assert_eq!(fits.texts("run"), ["a", "b"]);
    for (row, truth) in [[2.0, 30.0, 0.5], [1.5, 20.0, 0.25]].iter().enumerate() {
        for (name, value) in ["E", "A", "alpha"].iter().zip(truth) {
            assert!(relative(fits.numbers(name)[row], *value) < 1e-9, "{name}");
        }
    }
}

#[test]
fn several_laws_give_a_row_each_and_null_for_parameters_of_others() {
    let flags = [&["--law", "power"], &SWEEP_FIT[..], &["--law", "mine = loss ~ a*tokens^-0.3 + d"]].concat();
    let fits = fit(SWEEP, &flags);
    assert_eq!(fits.rows, 1500);
    assert_eq!(fits.texts("law")[..4], ["power", "saturating_power", "mine", "power"]);
    assert_eq!(fits.texts("run")[2], fits.texts("run")[0]);
    assert!(fits.numbers("p")[0].is_finite() && fits.numbers("p")[1].is_nan() && fits.numbers("alpha")[2].is_nan());
    let all =
        fit(SWEEP, &["--law", "all", "--x", "tokens", "--y", "loss", "--by", "run", "--where", "run < 'c00000002'"]);
    let laws = sweepfit::law::catalogue::CATALOGUE.iter().filter(|entry| entry.inputs.len() == 1).count();
    assert_eq!(all.rows, 2 * laws);
}

#[test]
fn a_fixed_parameter_keeps_its_value_and_has_no_standard_error() {
    let folder = Folder::new();
    let fits = fit(&folder.text("exact.csv", &exact()), &[&EXACT_FIT[..], &["--fix", "E=1.75"]].concat());
    assert_eq!(fits.numbers("E"), [1.75, 1.75]);
    assert!(fits.numbers("E_se").iter().all(|se| se.is_nan()) && fits.numbers("A_se").iter().all(|se| *se > 0.0));
}

#[test]
fn a_bound_pins_and_says_so() {
    let folder = Folder::new();
    let input = folder.text("exact.csv", &exact());
    let fits = fit(&input, &[&EXACT_FIT[..], &["--bound", "alpha=0.4:2"]].concat());
    assert_eq!(fits.texts("status"), ["converged", "at_bound"]);
    assert_eq!(fits.texts("at_bound"), ["[]", "[alpha]"]);
    assert_eq!(fits.numbers("alpha")[1], 0.4);
    assert!(fits.numbers("alpha_se")[1].is_nan());
    let csv = run(&[&["fit", &input], &EXACT_FIT[..], &["--bound", "alpha=0.4:2", "-q", "-o", "-"]].concat());
    assert!(csv.stdout.lines().nth(2).is_some_and(|line| line.ends_with(",alpha")), "{}", csv.stdout);
}

#[test]
fn a_start_and_a_grid_lead_to_the_same_optimum() {
    let folder = Folder::new();
    let input = folder.text("exact.csv", &exact());
    for flags in [["--start", "alpha=0.3,0.6"], ["--grid", "alpha=0.1:1:12"], ["--grid", "alpha=-1:1:40"]] {
        let fits = fit(&input, &[&EXACT_FIT[..], &flags].concat());
        assert!(relative(fits.numbers("alpha")[0], 0.5) < 1e-9, "{flags:?}: {:?}", fits.numbers("alpha"));
    }
}

#[test]
fn a_constant_sigma_changes_standard_errors_only() {
    let folder = Folder::new();
    let input = folder.text("exact.csv", &exact().replace(",0.1,", ",0.2,"));
    let flags = [&EXACT_FIT[..], &["--space", "linear"]].concat();
    let (plain, weighed) = (fit(&input, &flags), fit(&input, &[&flags[..], &["--sigma", "s"]].concat()));
    for row in 0..2 {
        assert!(relative(weighed.numbers("alpha")[row], plain.numbers("alpha")[row]) < 1e-9);
        // The curves are exact: their scatter says nothing, sigma does.
        assert!(weighed.numbers("alpha_se")[row] > 1e3 * plain.numbers("alpha_se")[row]);
    }
}

#[test]
fn where_keeps_rows_and_the_summary_counts_the_rest() {
    let folder = Folder::new();
    let (input, out) = (folder.text("exact.csv", &exact()), folder.file("fits.parquet"));
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["--where", "run == 'b' and x >= 64", "-o", &out]].concat());
    assert!(ran.stderr.contains("1 curve of 24 rows; rows left out: 14 by --where"), "{}", ran.stderr);
    let fits = Table::read(Path::new(&out));
    assert_eq!((fits.texts("run"), fits.numbers("points")), (&["b".to_string()][..], &[10.0][..]));
}

#[test]
fn nulls_nans_and_rows_of_weight_zero_are_left_out_and_counted() {
    let folder = Folder::new();
    let text = exact().replacen(",0.1,1\n", ",0.1,0\n", 1) + "b,,3,0.1,1\nb,7,NaN,0.1,1\nb,9,,0.1,1\nb,9,3,0.1,\n";
    let (input, out) = (folder.text("dirty.csv", &text), folder.file("fits.parquet"));
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["--weight", "w", "-o", &out]].concat());
    assert!(ran.stderr.contains("28 rows; rows left out: 5 null, NaN or of weight zero"), "{}", ran.stderr);
    assert_eq!(Table::read(Path::new(&out)).numbers("points"), [11.0, 12.0]);
}

#[cfg(unix)]
#[test]
fn list_columns_are_a_curve_a_row() {
    use arrow::array::{ArrayRef, Float64Builder, ListBuilder, RecordBatch, StringArray};
    use std::sync::Arc;
    let folder = Folder::new();
    let [mut x, mut y] = [(); 2].map(|()| ListBuilder::new(Float64Builder::new()));
    for (floor, amplitude, exponent) in [(2.0, 30.0, 0.5f64), (1.5, 20.0, 0.25)] {
        for value in (4..16).map(|power| f64::from(1 << power)) {
            x.values().append_value(value);
            y.values().append_value(floor + amplitude * value.powf(-exponent));
        }
        x.append(true);
        y.append(true);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("run", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("x", Arc::new(x.finish())),
        ("y", Arc::new(y.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = std::fs::File::create(folder.path("lists.parquet")).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    let lists = fit(&folder.file("lists.parquet"), &EXACT_FIT);
    let long = fit(&folder.text("exact.csv", &exact()), &EXACT_FIT);
    assert_eq!(lists.numbers("alpha"), long.numbers("alpha"));
    assert_eq!(lists.texts("run"), ["a", "b"]);
}

#[test]
fn folders_of_key_value_become_columns() {
    let folder = Folder::new();
    for (size, text) in [("1", exact()), ("2", exact())] {
        std::fs::create_dir_all(folder.path(&format!("runs/size={size}"))).expect("a folder");
        folder.text(&format!("runs/size={size}/part.csv"), &text);
    }
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "size,run"];
    let fits = fit(&folder.file("runs"), &law);
    assert_eq!(fits.keys(&["size", "run"]), ["1|a", "1|b", "2|a", "2|b"]);
}

#[test]
fn strict_exits_with_one_where_a_curve_failed_and_still_writes() {
    let folder = Folder::new();
    let input = folder.text("exact.csv", &(exact() + "c,1,2,1,1\n"));
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["-o", &out]].concat());
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("1 too_few_points (first run=c)"), "{}", ran.stderr);
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["--strict", "-q", "-o", &out]].concat());
    assert_eq!(ran.code, 1);
    let said = "error: --strict: saturating_power: 1 of 3 curves neither converged nor at_bound: \
                1 too_few_points (first run=c): --fix parameters, or keep such curves out with --where\n";
    assert_eq!(ran.stderr, said, "-q leaves the reason alone");
    let fits = Table::read(Path::new(&out));
    assert_eq!(fits.texts("status"), ["converged", "converged", "too_few_points"]);
    assert!(fits.numbers("E")[2].is_nan() && fits.numbers("objective")[2].is_nan());
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["--strict", "-q", "-o", &out]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "every curve converged");
}

#[test]
fn strict_says_of_every_law_and_status_what_failed_and_what_helps() {
    let folder = Folder::new();
    let input =
        folder.text("exact.csv", &(exact() + "c,1,2,1,1\nc,2,-1,1,1\nc,3,1,1,1\nd,1,2,1,1\nd,2,2,1,1\nd,3,2,1,1\n"));
    let (out, laws) = (folder.file("fits.parquet"), ["--law", "power", "--strict"]);
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &laws, &["-o", &out]].concat());
    assert_eq!(ran.code, 1);
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    for (law, line) in ["saturating_power", "power"].iter().zip(&lines) {
        let said = format!("error: --strict: {law}: 2 of 4 curves neither converged nor at_bound: ");
        assert!(line.starts_with(&said), "{line}");
        for part in ["1 bad_domain (first run=c): keep such rows out, for example with --where", "--drop-bad-rows"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.contains("1 degenerate (first run=d): --fix what the data do not determine"), "{line}");
    }
    assert_eq!(lines.len(), 2, "{}", ran.stderr);
    let json = run(&[&["fit", &input], &EXACT_FIT[..], &["--strict", "--log-format", "json", "-o", &out]].concat());
    let last: serde_json::Value = serde_json::from_str(json.stderr.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["level"], &last["event"]), (&"error".into(), &"strict".into()), "{last}");
}

#[test]
fn what_is_read_is_not_written_over_and_no_two_outputs_share_a_place() {
    let folder = Folder::new();
    let text = exact();
    std::fs::create_dir(folder.path("in")).expect("a folder");
    let input = folder.text("in/exact.csv", &text);
    let (out, pattern, within) = (folder.file("fits.parquet"), folder.file("in/*.csv"), folder.file("in/new.csv"));
    for (inputs, options, said) in [
        (&input, &["--summary", &input][..], "is read and would be written over; choose another place with --summary"),
        (&input, &["--metrics", &input][..], "choose another place with --metrics"),
        (&input, &["--resume", "--ledger", &input][..], "choose another place with --ledger"),
        (&pattern, &["--metrics", &input][..], "would be written over"),
        (&folder.file("in"), &["--metrics", &within][..], "is read with"),
        (&input, &["--summary", &out][..], "-o and --summary both name"),
        (&input, &["--metrics", &out][..], "-o and --metrics both name"),
    ] {
        let ran = run(&[&["fit", inputs], &EXACT_FIT[..], options, &["-o", &out]].concat());
        assert_eq!(ran.code, 2, "{options:?}");
        assert!(ran.stderr.contains(said), "{options:?}: {}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&input).expect("the input"), text, "{options:?}");
        assert!(!Path::new(&out).exists() && !Path::new(&within).exists(), "{options:?}");
    }
    // Of a folder tables are read, and no summary that lies there.
    let beside = folder.file("in/summary.json");
    for _ in 0..2 {
        let options = ["--summary", &beside, "--fingerprint", "-q", "-o", &out];
        let ran = run(&[&["fit", &folder.file("in")], &EXACT_FIT[..], &options].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    }
    let since = run(&[&["fit", &input], &EXACT_FIT[..], &["--since", &out, "--summary", &out, "-o", &within]].concat());
    assert!(since.code == 2 && since.stderr.contains("--summary"), "{}", since.stderr);
    let generated = folder.file("g.parquet");
    let ran = run(&["generate", "--law", "power", "--curves", "3", "--truth", &generated, "-o", &generated]);
    assert!(ran.code == 2 && ran.stderr.contains("-o and --truth both name"), "{}", ran.stderr);
    let job = folder.text("job.toml", "");
    let ran = run(&["run", &job, "--metrics", &job]);
    assert!(ran.code == 2 && Path::new(&job).metadata().expect("the job").len() == 0, "{}", ran.stderr);
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["--part-rows", "5", "-o", "-"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("--part-rows makes a folder of files"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_text_are_refused_and_no_reason_to_die() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.csv");
    let ran: Ran = command(&["fit"]).arg(name).args(EXACT_FIT).output().expect("the binary starts").into();
    assert!(ran.code == 2 && ran.stderr.starts_with("error: "), "{}: {}", ran.code, ran.stderr);
}

#[test]
fn what_is_said_against_infinite_values_helps() {
    let folder = Folder::new();
    let input = folder.text("exact.csv", &(exact() + "a,65536,inf,0.1,1\n"));
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["-o", &out]].concat());
    assert!(ran.stderr.contains("run=a: y is infinite"), "{}", ran.stderr);
    let (_, advice) = ran.stderr.split_once("--where '").expect("advice");
    let (filter, _) = advice.split_once('\'').expect("a filter");
    let ran = run(&[&["fit", &input], &EXACT_FIT[..], &["--where", filter, "--strict", "-q", "-o", &out]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn the_summary_file_and_the_metadata_hold_the_methods() {
    let folder = Folder::new();
    let (out, summary) = (folder.file("fits.parquet"), folder.file("summary.json"));
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["--summary", &summary, "-q", "-o", &out]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(summary).expect("the summary")).expect("JSON");
    assert_eq!(json["curves"], 500, "{json:#}");
    let fits = Table::read(Path::new(&out));
    let version = fits.metadata.get("sweepfit.version").map(String::as_str);
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{:?}", fits.metadata);
    assert!(fits.metadata.values().any(|value| value.contains("E + A*x^-alpha")), "{:?}", fits.metadata);
}

#[test]
fn out_is_replaced_only_by_a_complete_one() {
    let folder = Folder::new();
    let out = folder.text("fits.parquet", "what was there before");
    // The first file is whole, the second is found damaged when its rows are read.
    let (good, bad) = (folder.file("a.parquet"), folder.path("b.parquet"));
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP)).expect("the sweep");
    std::fs::write(&good, &bytes).expect("a file");
    let mut damaged = bytes;
    damaged[40..4000].fill(0xa5);
    std::fs::write(&bad, damaged).expect("a file");
    let bad = folder.file("b.parquet");
    let ran = run(&[&["fit", &good, &bad], &SWEEP_FIT[..], &["-o", &out]].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("b.parquet"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&out).expect("the old file"), "what was there before");
    assert_eq!(folder.names(), ["a.parquet", "b.parquet", "fits.parquet"]);
    assert_eq!(run(&[&["fit", &good], &SWEEP_FIT[..], &["-q", "-o", &out]].concat()).code, 0);
    assert_eq!(Table::read(Path::new(&out)).rows, 500);
}

#[cfg(unix)]
#[test]
fn sigterm_leaves_out_and_no_temporary_file() {
    use std::process::Stdio;
    let folder = Folder::new();
    let (sweep, out) = (folder.file("sweep.parquet"), folder.text("fits.parquet", "what was there before"));
    let recipe = "generate --law chinchilla --curves 30000 --points 32 --x N=1e6:1e10 --x D=1e8:1e12 --param E=1.5:2 \
                  --param A=300:500 --param B=300:500 --param alpha=0.3:0.4 --param beta=0.3:0.4 -q -o";
    let recipe: Vec<&str> = recipe.split_whitespace().chain([sweep.as_str()]).collect();
    assert_eq!(run(&recipe).code, 0);
    let flags =
        ["--law", "chinchilla", "--x", "N,D", "--y", "y", "--by", "curve", "--loss", "huber", "--backend", "cpu"];
    let child = command(&[&["fit", &sweep], &flags[..], &["--threads", "1", "-o", &out]].concat())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // The temporary file shows that the run is under way.
    let start = std::time::Instant::now();
    while folder.names().len() == 2 {
        assert!(start.elapsed().as_secs() < 30, "no temporary file appeared");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill is there");
    let output = child.wait_with_output().expect("its end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.ends_with("error: interrupted; no output was written\n"), "{stderr}");
    assert_eq!(folder.names(), ["fits.parquet", "sweep.parquet"]);
    assert_eq!(std::fs::read_to_string(&out).expect("the old file"), "what was there before");
}

#[test]
fn names_of_a_formula_are_told_apart_on_stderr() {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let ran = run(&["fit", SWEEP, "--law", "loss ~ E + A*tokens^-alpha", "--by", "run", "-o", &out]);
    assert!(ran.stderr.contains("inputs: tokens; parameters: E, A, alpha"), "{}", ran.stderr);
    let ran = run(&[&["fit", SWEEP, "--law", "E + A*tokens^-alpha + 0*c"], &SWEEP_FIT[2..], &["-o", &out]].concat());
    assert!(ran.stderr.contains("note: --x is ignored by `E + A*tokens^-alpha + 0*c`"), "{}", ran.stderr);
}

#[test]
fn generated_sweeps_are_the_same_for_the_same_seed() {
    let folder = Folder::new();
    let make = |name: &str, seed: &str| {
        let out = folder.file(name);
        let flags =
            ["generate", "--law", "power", "--param", "a=1:2", "--param", "p=-1:1", "--curves", "10", "--seed", seed];
        let ran = run(&[&flags[..], &["-q", "-o", &out]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        std::fs::read(out).expect("the sweep")
    };
    assert!(make("a", "1") == make("b", "1") && make("c", "2") != make("a", "1"));
}
