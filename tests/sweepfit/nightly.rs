//! Unattended runs: killed and resumed, on changed data, two at once. Nothing is lost, doubled or half-written.

use crate::support::*;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use sweepfit::random::Stream;

/// Curves of 8 points under a law with a floor, whose rows lie together; `scattered`, not: rows of equal points do.
fn sweep(folder: &Folder, curves: usize, scattered: bool) -> String {
    let name = folder.file(if scattered { "scattered.parquet" } else { "sweep.parquet" });
    let curves_text = curves.to_string();
    let ran = run(&[
        "generate",
        "--law",
        "saturating_power",
        "--curves",
        &curves_text,
        "--points",
        "8",
        "--seed",
        "5",
        "-o",
        &name,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    if scattered {
        let table = Table::read(Path::new(&name));
        let order: Vec<usize> = (0..8).flat_map(|point| (0..curves).map(move |curve| curve * 8 + point)).collect();
        table.take(&order).write(Path::new(&name), 50_000);
    }
    name
}

/// The key column and the mapping of generated sweeps.
const FIT: [&str; 8] = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve"];

fn fit_command(input: &str, out: &str, more: &[&str]) -> Vec<String> {
    let all = [&["fit", input], &FIT[..], more, &["-o", out]].concat();
    all.into_iter().map(String::from).collect()
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Kills a run at random moments and resumes it until it is done, over and over, until it was killed `kills` times. Every
/// time the output has to be that of a run that nothing disturbed.
fn survives(curves: usize, kills: usize, scattered: bool, more: &[&str]) {
    let folder = Folder::new();
    let input = sweep(&folder, curves, scattered);
    let (expected, out) = (folder.file("expected.parquet"), folder.file("fits.parquet"));
    let started = Instant::now();
    let ran = run(&texts(&fit_command(&input, &expected, more)));
    let whole = started.elapsed();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = std::fs::read(&expected).expect("the undisturbed output");
    let resumed = fit_command(&input, &out, &[more, &["--resume"]].concat());
    let mut moments = Stream::new(6, curves as u64);
    let (mut killed, mut finished, mut went_on) = (0, 0, 0);
    while killed < kills || went_on == 0 {
        let mut child = command(&texts(&resumed)).stderr(Stdio::piped()).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * moments.uniform(0.0, 1.1)));
        if child.try_wait().expect("a child").is_none() {
            child.kill().expect("killed");
        }
        let ran: Ran = child.wait_with_output().expect("an end").into();
        if ran.code == 0 {
            finished += 1;
            went_on += usize::from(ran.stderr.contains("by an earlier run"));
            assert!(std::fs::read(&out).expect("an output") == expected, "after {killed} kills");
            let hidden: Vec<String> = folder.names().into_iter().filter(|name| name.starts_with('.')).collect();
            assert!(hidden.is_empty(), "{hidden:?} after a run that ended well");
            std::fs::remove_file(&out).expect("removed");
        } else {
            assert_eq!((ran.code, ran.stderr.contains("error:")), (-1, false), "{}", ran.stderr);
            killed += 1;
        }
    }
    println!("{killed} kills, {finished} runs ended, {went_on} of them behind an earlier one");
}

#[test]
fn a_run_killed_anywhere_and_resumed_writes_the_bytes_of_an_undisturbed_one() {
    survives(50_000, 12, false, &[]);
}

#[test]
fn so_does_one_whose_rows_lie_apart_and_one_with_replicates() {
    survives(40_000, 6, true, &[]);
    survives(2_000, 6, false, &["--bootstrap", "20:pairs", "--verify", "5"]);
}

#[test]
#[ignore = "ten minutes; run with: cargo test --release --test sweepfit a_thousand_kills -- --ignored --nocapture"]
fn a_thousand_kills_of_two_hundred_thousand_curves_lose_nothing() {
    survives(200_000, 1_000, false, &[]);
}

/// Kills a run as soon as there is something to go on behind, a batch being about a megabyte; what its ledger holds.
fn killed(arguments: &[String], ledger: &Path) -> Vec<u8> {
    let mut child = command(&texts(arguments)).stderr(Stdio::null()).spawn().expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while ledger.metadata().map_or(0, |metadata| metadata.len()) < 3_000_000 {
        assert!(Instant::now() < deadline && child.try_wait().expect("a child").is_none(), "no ledger was written");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("an end");
    std::fs::read(ledger).expect("a ledger")
}

/// Changes the last digit of a line of a CSV file, which stays as long and as old as it was.
fn change_a_digit(file: &str, line: usize) {
    let written = std::fs::metadata(file).and_then(|metadata| metadata.modified()).expect("a time");
    let mut bytes = std::fs::read(file).expect("the file");
    let end = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(line).expect("a line").0;
    bytes[end - 1] = if bytes[end - 1] == b'3' { b'7' } else { b'3' };
    std::fs::write(file, bytes).expect("written");
    std::fs::File::options().write(true).open(file).and_then(|file| file.set_modified(written)).expect("its time");
}

#[test]
fn a_job_that_nobody_watches_begins_anew_where_what_was_left_is_of_no_use() {
    let folder = Folder::new();
    let table = Table::read(Path::new(&sweep(&folder, 60_000, false)));
    let Column::Texts(curve) = &table.columns["curve"] else { panic!("curve is a text") };
    let (x, y) = (table.numbers("x"), table.numbers("y"));
    let rows = (0..table.rows).map(|row| format!("{},{:?},{:?}\n", curve[row], x[row], y[row]));
    let input = folder.text("sweep.csv", &std::iter::once("curve,x,y\n".to_string()).chain(rows).collect::<String>());
    let (out, ledger) = (folder.file("fits.parquet"), folder.path("kept.ledger"));
    let ledger_name = folder.file("kept.ledger");
    let attended = fit_command(&input, &out, &["--resume", "--ledger", &ledger_name, "--since", &out]);
    let unwatched = [&attended[..], &["--or-begin-anew".to_string()]].concat();
    let expected = || fit(&input, &[&FIT[..], &["--fingerprint"]].concat());
    // The first night: there are no fits yet.
    let ran = run(&texts(&attended));
    assert!(ran.code == 2 && ran.stderr.contains("fits.parquet: is not there; in the first night"), "{}", ran.stderr);
    killed(&unwatched, &ledger);
    // By the next night the input is another one.
    let bytes = std::fs::read(&input).expect("the input");
    std::fs::write(&input, &bytes).expect("the same rows, written later");
    let kept = std::fs::read(&ledger).expect("a ledger");
    let resumed = fit_command(&input, &out, &["--fingerprint", "--resume", "--ledger", &ledger_name]);
    let ran = run(&texts(&resumed));
    assert!(ran.code == 2 && ran.stderr.contains("begin anew with --or-begin-anew"), "{}", ran.stderr);
    let job = run(&[&texts(&unwatched)[..], &["--print-job"]].concat()).stdout;
    let job = folder.text("job.toml", &job);
    let checked = run(&["run", &job, "--check"]);
    assert!(checked.code == 0 && checked.stderr.contains("another run: input"), "{}", checked.stderr);
    assert!(std::fs::read(&ledger).expect("a ledger") == kept, "looking changed the ledger");
    let ran = run(&["run", &job]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for reason in ["beginning anew: ", "another run: input", "fits.parquet is not there"] {
        assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
    }
    assert!(!ledger.exists());
    assert_same_rows(&expected(), &Table::read(Path::new(&out)));
    // A change that neither length nor time betrays shows when batches are compared with those of the ledger.
    std::fs::remove_file(&out).expect("removed");
    killed(&unwatched, &ledger);
    change_a_digit(&input, 1);
    let ran = run(&["run", &job]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("batch 1 of the input has changed since") && !ledger.exists(), "{}", ran.stderr);
    assert_same_rows(&expected(), &Table::read(Path::new(&out)));
    // Fits of another job.
    assert_eq!(run(&texts(&fit_command(&input, &out, &["--fingerprint", "--loss", "huber"]))).code, 0);
    let ran = run(&["run", &job]);
    assert!(ran.code == 0 && ran.stderr.contains("another job: objective was"), "{}", ran.stderr);
    assert_same_rows(&expected(), &Table::read(Path::new(&out)));
    assert!(run(&["run", &job]).stderr.contains("60,000 carried over"));
}

#[test]
fn a_ledger_of_other_options_or_inputs_is_refused_with_the_reason() {
    let folder = Folder::new();
    let input = sweep(&folder, 60_000, false);
    let out = folder.file("fits.parquet");
    let arguments = fit_command(&input, &out, &["--resume"]);
    let ledger = folder.path(".fits.parquet.ledger");
    let kept = killed(&arguments, &ledger);

    let other = run(&texts(&fit_command(&input, &out, &["--resume", "--loss", "huber"])));
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("another run: objective was \"sum of w r^2/2"), "{}", other.stderr);
    let changed = folder.file("changed.parquet");
    std::fs::copy(&input, &changed).expect("a copy");
    let other = run(&texts(&fit_command(&changed, &out, &["--resume"])));
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("another run: inputs was"), "{}", other.stderr);
    let bytes = std::fs::read(&input).expect("the input");
    std::fs::write(&input, &bytes).expect("the same content, written later");
    let other = run(&texts(&arguments));
    assert_eq!(other.code, 2);
    assert!(
        other.stderr.contains(&format!("another run: input {input} was \"{} bytes", bytes.len())),
        "{}",
        other.stderr
    );
    assert!(!folder.path("fits.parquet").exists());
    assert!(std::fs::read(&ledger).expect("a ledger") == kept, "refusing a ledger changed it");
    let said = run(&texts(&fit_command(&input, "-", &["--resume"])));
    assert!(said.code == 2 && said.stderr.contains("--resume keeps a ledger beside the output"), "{}", said.stderr);
}

#[test]
fn a_second_run_on_one_output_names_the_first_and_a_terminated_one_can_be_resumed() {
    let folder = Folder::new();
    let input = sweep(&folder, 100_000, false);
    let out = folder.file("fits.parquet");
    let arguments = fit_command(&input, &out, &["--resume", "--bootstrap", "100"]);
    let child = command(&texts(&arguments)).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let ledger = folder.path(".fits.parquet.ledger");
    let deadline = Instant::now() + Duration::from_secs(60);
    while ledger.metadata().map_or(0, |metadata| metadata.len()) < 50_000 {
        assert!(Instant::now() < deadline, "no ledger was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = run(&texts(&fit_command(&input, &out, &[])));
    assert_eq!(second.code, 2);
    assert!(second.stderr.contains(&format!("written by process {}", child.id())), "{}", second.stderr);
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill is there");
    let asked = Instant::now();
    let ran: Ran = child.wait_with_output().expect("an end").into();
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?} to stop", asked.elapsed());
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("the same command goes on there"), "{}", ran.stderr);
    assert!(ledger.exists() && !folder.path("fits.parquet").exists());
    assert!(
        folder.names().iter().all(|name| !name.ends_with(".part") && !name.ends_with(".lock")),
        "{:?}",
        folder.names()
    );
}

/// The same rows, all columns bit by bit, whatever the metadata.
fn assert_same_rows(one: &Table, other: &Table) {
    assert_eq!((&one.names, one.rows), (&other.names, other.rows));
    for name in &one.names {
        match (&one.columns[name], &other.columns[name]) {
            (Column::Numbers(a), Column::Numbers(b)) => {
                let differ =
                    a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
                assert_eq!(differ, None, "{name}: {:?} and {:?}", differ.map(|row| a[row]), differ.map(|row| b[row]));
            }
            (Column::Texts(a), Column::Texts(b)) => assert!(a == b, "{name}"),
            kinds => panic!("{name}: {kinds:?}"),
        }
    }
}

/// The sweep of a later night: some curves changed, gone, new, grown, and all in another order.
fn a_day_later(folder: &Folder, input: &str) -> String {
    let mut table = Table::read(Path::new(input));
    let rows = |curves: std::ops::Range<usize>| curves.flat_map(|curve| curve * 8..curve * 8 + 8);
    // Curves 0 to 99 lose a point, 100 to 149 are gone, 200 to 219 have another last point, the last ones come first.
    let order: Vec<usize> =
        rows(1500..2000).chain(rows(0..100).filter(|row| row % 8 != 3)).chain(rows(150..1500)).collect();
    let Some(Column::Numbers(y)) = table.columns.get_mut("y") else { panic!("y is a number") };
    (200..220).for_each(|curve| y[curve * 8 + 7] *= 1.01);
    let Some(Column::Texts(keys)) = table.columns.get_mut("curve") else { panic!("curve is a text") };
    rows(300..330).for_each(|row| keys[row].push_str("-new"));
    let name = folder.file("later.parquet");
    table.take(&order).write(Path::new(&name), 3_000);
    name
}

#[test]
fn only_what_changed_is_fitted_again_and_the_table_is_that_of_a_fit_of_everything() {
    for more in [&[][..], &["--law", "power", "--select", "bic", "--covariance", "--level", "0.9"]] {
        let folder = Folder::new();
        let input = sweep(&folder, 2_000, false);
        let (first, second, all) =
            (folder.file("fits.parquet"), folder.file("second.parquet"), folder.file("all.parquet"));
        let fitted = |input: &str, out: &str, options: &[&str]| {
            let ran = run(&texts(&fit_command(input, out, &[more, options].concat())));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            ran.stderr
        };
        fitted(&input, &first, &["--fingerprint"]);
        let said = fitted(&input, &second, &["--since", &first]);
        assert!(said.contains("2,000 carried over, 0 changed, 0 new; 0 curves vanished"), "{said}");
        assert_same_rows(&Table::read(Path::new(&first)), &Table::read(Path::new(&second)));

        let later = a_day_later(&folder, &input);
        fitted(&later, &all, &["--fingerprint"]);
        // In the place of the table that it goes on from, and under a ledger.
        let said = fitted(&later, &second, &["--since", &second, "--resume"]);
        assert!(said.contains("1,800 carried over, 120 changed, 30 new; 80 curves vanished"), "{said}");
        assert!(said.contains("vanished: curve=c00000100\n") && said.contains("and 70 more"), "{said}");
        let (expected, carried) = (Table::read(Path::new(&all)), Table::read(Path::new(&second)));
        assert_same_rows(&expected, &carried);
        assert_eq!(carried.metadata["sweepfit.curves_carried_over"], "1800");
        assert_eq!(carried.metadata["sweepfit.counts"], expected.metadata["sweepfit.counts"]);
    }
}

#[test]
fn the_summary_of_a_night_speaks_of_the_whole_table() {
    let options = [
        &[][..],
        &["--drop-bad-rows"],
        &["--law", "power", "--select", "bic"],
        &["--law", "power", "--select", "holdout", "--drop-bad-rows"],
        &["--bootstrap", "20"],
    ];
    for more in options {
        let folder = Folder::new();
        let input = sweep(&folder, 400, false);
        let mut table = Table::read(Path::new(&input));
        let Some(Column::Numbers(y)) = table.columns.get_mut("y") else { panic!("y is a number") };
        (0..400).step_by(9).for_each(|row| y[row] = f64::NAN);
        let Some(Column::Numbers(x)) = table.columns.get_mut("x") else { panic!("x is a number") };
        (1000..1400).step_by(7).for_each(|row| x[row] = 0.0);
        // Some curves have as many points as parameters, and some fewer.
        let keep = |row: &usize| !(240..250).contains(&(row / 8)) || row % 8 < 3 - (row / 8) % 2;
        let rows: Vec<usize> = (0..table.rows).filter(keep).collect();
        let mut table = table.take(&rows);
        table.write(Path::new(&input), 1_000);
        let (first, second, all) =
            (folder.file("first.parquet"), folder.file("second.parquet"), folder.file("all.parquet"));
        let fitted = |out: &str, options: &[&str]| {
            let ran = run(&texts(&fit_command(&input, out, &[more, options].concat())));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            ran.stderr
        };
        fitted(&first, &["--fingerprint"]);
        let Some(Column::Numbers(y)) = table.columns.get_mut("y") else { panic!("y is a number") };
        let last = y.len() - 1;
        y[last] *= 1.01;
        table.write(Path::new(&input), 1_000);
        fitted(&all, &["--fingerprint"]);
        let said = fitted(&second, &["--since", &first]);
        assert!(said.contains("399 carried over, 1 changed"), "{said}");
        let (expected, carried) = (Table::read(Path::new(&all)), Table::read(Path::new(&second)));
        for key in ["rows_missing", "rows_dropped", "counts"] {
            let key = format!("sweepfit.{key}");
            assert_eq!(carried.metadata[&key], expected.metadata[&key], "{key} {more:?}");
        }
        assert_ne!(expected.metadata["sweepfit.rows_missing"], "0");
        let cards = |table: &Table| {
            let mut cards: serde_json::Value =
                serde_json::from_str(&table.metadata["sweepfit.laws"]).expect("JSON of the laws");
            for card in cards.as_array_mut().expect("a list") {
                // What a night has drawn is its own.
                for own in ["replicates", "not_fitted", "at_bound", "judged"] {
                    card["bootstrap"][own].take();
                }
            }
            cards
        };
        assert_eq!(cards(&carried), cards(&expected), "{more:?}");
    }
}

#[cfg(unix)]
#[test]
fn whatever_a_run_is_doing_it_stops_within_a_second_of_a_signal() {
    let folder = Folder::new();
    let (input, scattered) = (sweep(&folder, 200_000, false), sweep(&folder, 200_001, true));
    let then = folder.file("then.parquet");
    assert_eq!(run(&texts(&fit_command(&input, &then, &["--fingerprint"]))).code, 0);
    let out = folder.file("out.parquet");
    let cases = [
        // One batch of these takes minutes.
        (&input, &["--law", "bnsl2"][..]),
        (&input, &["--bootstrap", "1000"]),
        (&scattered, &["--memory", "64MiB", "--resume"]),
        (&input, &["--since", &then]),
    ];
    let mut moments = Stream::new(8, 1);
    for (input, more) in cases {
        let arguments = fit_command(input, &out, more);
        for _ in 0..4 {
            let mut child = command(&texts(&arguments)).stderr(Stdio::null()).spawn().expect("the binary starts");
            std::thread::sleep(Duration::from_secs_f64(moments.uniform(0.05, 1.0)));
            if child.try_wait().expect("a child").is_some() {
                continue;
            }
            std::process::Command::new("kill")
                .args(["-TERM", &child.id().to_string()])
                .status()
                .expect("kill is there");
            let asked = Instant::now();
            let code = child.wait().expect("an end").code();
            assert!(asked.elapsed() < Duration::from_secs(1), "{more:?} took {:?} to stop", asked.elapsed());
            // Done, where the signal came too late.
            assert!(matches!(code, Some(2 | 0)), "{more:?} {code:?}");
        }
    }
}

#[test]
fn parts_are_gone_on_from_however_they_were_made() {
    let folder = Folder::new();
    let input = sweep(&folder, 300, false);
    let mut table = Table::read(Path::new(&input));
    let groups = (0..table.rows).map(|row| format!("{}/ä", row / 8 % 3)).collect();
    table.columns.insert("group".to_string(), Column::Texts(groups));
    table.names.push("group".to_string());
    table.write(Path::new(&input), 1_000);
    let (parts, whole) = (folder.file("parts"), folder.file("whole.parquet"));
    let laws = ["--law", "power", "--by", "group,curve"];
    let arguments = |out: &str, more: &[&str]| {
        let fit = ["fit", &input, "--law", "saturating_power", "--x", "x", "--y", "y"];
        [&fit[..], &laws, more, &["-o", out]].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    let fitted = |out: &str, more: &[&str]| {
        let ran = run(&texts(&arguments(out, more)));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    // A part ends between the laws of a curve; a folder holds the key.
    for parted in [&["--part-rows", "71"][..], &["--partition-by", "group"]] {
        fitted(&parts, &[parted, &["--fingerprint"]].concat());
        let said = fitted(&parts, &[parted, &["--since", &parts]].concat());
        assert!(said.contains("300 carried over, 0 changed, 0 new; 0 curves vanished"), "{said}");
        let said = fitted(&whole, &["--since", &parts]);
        assert!(said.contains("300 carried over"), "{said}");
        let all = folder.file("all.parquet");
        fitted(&all, &["--fingerprint"]);
        assert_same_rows(&Table::read(Path::new(&all)), &Table::read(Path::new(&whole)));
    }
    fitted(&parts, &["--partition-by", "law", "--fingerprint"]);
    let torn = run(&texts(&arguments(&whole, &["--since", &parts])));
    assert!(torn.code == 2 && torn.stderr.contains("parts by law or status tear them apart"), "{}", torn.stderr);
}

#[test]
fn fits_of_another_job_are_not_carried_over() {
    let folder = Folder::new();
    let input = sweep(&folder, 50, false);
    let (plain, known, out) = (folder.file("plain.parquet"), folder.file("known.parquet"), folder.file("out.parquet"));
    assert_eq!(run(&texts(&fit_command(&input, &plain, &[]))).code, 0);
    assert_eq!(run(&texts(&fit_command(&input, &known, &["--fingerprint"]))).code, 0);
    let table = Table::read(Path::new(&known));
    let (bare, absent) = (folder.file("bare.parquet"), folder.file("absent.parquet"));
    table.write(Path::new(&bare), 100);
    for (since, options, expected) in [
        (&plain, &[][..], "another job: fingerprint was \"not written\""),
        (&known, &["--loss", "huber"][..], "another job: objective was \"sum of w r^2/2"),
        (&known, &["--bound", "alpha=0:1"][..], "another job: boxes was"),
        (&known, &["--grid", "alpha=0.1:1:9"][..], "another job: "),
        (&known, &["--where", "x > 2"][..], "another job: where was \"\", and is \"x > 2\""),
        (&known, &["--covariance"][..], "another job: covariance was \"not written\""),
        (&bare, &[][..], "no table of fits with its metadata"),
        (&absent, &[][..], "in the first night, write fits with --fingerprint"),
        (&input, &[][..], "no table of fits with its metadata"),
    ] {
        let ran = run(&texts(&fit_command(&input, &out, &[options, &["--since", since]].concat())));
        assert_eq!(ran.code, 2, "{options:?}");
        assert!(ran.stderr.contains(expected) && ran.stderr.contains(since.as_str()), "{options:?}: {}", ran.stderr);
        assert!(!folder.path("out.parquet").exists());
    }
}

/// Some points of every curve, some values of y multiplied.
fn points(table: &Table, keep: impl Fn(usize, usize) -> bool, factor: impl Fn(usize, usize) -> f64) -> Table {
    let mut table = table.clone();
    let Some(Column::Numbers(y)) = table.columns.get_mut("y") else { panic!("y is a number") };
    y.iter_mut().enumerate().for_each(|(row, y)| *y *= factor(row / 12, row % 12));
    let kept: Vec<usize> = (0..table.rows).filter(|row| keep(row / 12, row % 12)).collect();
    table.take(&kept)
}

#[test]
fn new_points_off_their_earlier_fit_are_told_from_those_on_it() {
    let folder = Folder::new();
    let sweep = folder.file("sweep.parquet");
    let recipe = "generate --law saturating_power --curves 600 --points 12 --x x=1:1e4 --param E=1:2 --param A=2:5 --param \
                  alpha=0.3:0.6 --noise 0.01 --seed 3 -q -o";
    assert_eq!(run(&recipe.split_whitespace().chain([sweep.as_str()]).collect::<Vec<_>>()).code, 0);
    let table = Table::read(Path::new(&sweep));
    let [first, second] = ["one.parquet", "two.parquet"].map(|name| folder.file(name));
    // The first night: ten points. The second: 500 curves have one or two more, ten of them 30% off; 20 have another first
    // value; 80 are what they were.
    let grown = |curve: usize| curve < 500;
    points(&table, |_, point| point < 10, |_, _| 1.0).write(Path::new(&first), 1000);
    let broken = |curve: usize| curve % 50 == 7;
    points(
        &table,
        |curve, point| point < if grown(curve) { 11 + curve % 2 } else { 10 },
        |curve, point| match point {
            10.. if broken(curve) => 1.3,
            0 if (500..520).contains(&curve) => 1.001,
            _ => 1.0,
        },
    )
    .write(Path::new(&second), 1000);
    let (then, now) = (folder.file("then.parquet"), folder.file("now.parquet"));
    let laws = ["--law", "power"];
    assert_eq!(run(&texts(&fit_command(&first, &then, &[&laws[..], &["--fingerprint"]].concat()))).code, 0);
    let watch = ["--since", &then, "--watch-law", "saturating_power", "--fail-on-broken", "--resume"];
    let ran = run(&texts(&fit_command(&second, &now, &[&laws[..], &watch].concat())));
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("new points of 500 curves tested, of 20 could not be"), "{}", ran.stderr);
    let found = Table::read(Path::new(&now));
    let (p, adjusted) = (found.numbers("broke"), found.numbers("broke_adjusted"));
    let tested: Vec<usize> = (0..500).map(|curve| 2 * curve).collect();
    assert!(
        (0..found.rows)
            .all(|row| p[row].is_nan() != tested.contains(&row) && p[row].is_nan() == adjusted[row].is_nan())
    );
    let alarms: Vec<usize> = (0..500).filter(|curve| adjusted[2 * curve] <= 0.05).collect();
    let missed: Vec<usize> = (0..500).filter(|&curve| broken(curve) && !alarms.contains(&curve)).collect();
    assert!(missed.is_empty() && alarms.len() <= 13, "missed {missed:?} of {alarms:?}");
    assert!(ran.stderr.contains(&format!("{} curves broken", alarms.len())), "{}", ran.stderr);
    // Where nothing broke p-values are uniform: their mean over 490 curves is 0.5 with a standard error of 0.013, and a
    // twentieth of them is below 0.05, give or take 0.01.
    let sound: Vec<f64> = (0..500).filter(|&curve| !broken(curve)).map(|curve| p[2 * curve]).collect();
    let mean = sound.iter().sum::<f64>() / sound.len() as f64;
    let small = sound.iter().filter(|p| **p < 0.05).count() as f64 / sound.len() as f64;
    assert!((mean - 0.5).abs() < 0.06 && (0.02..0.09).contains(&small), "mean {mean}, {small} below 0.05");
    // A night later nothing is new: rows are carried over, and speak of no new points.
    let watch = ["--since", &now, "--watch-law", "saturating_power", "--fail-on-broken"];
    let ran = run(&texts(&fit_command(&second, &now, &[&laws[..], &watch].concat())));
    assert!(ran.code == 0 && ran.stderr.contains("600 carried over"), "{} {}", ran.code, ran.stderr);
    assert!(Table::read(Path::new(&now)).numbers("broke").iter().all(|p| p.is_nan()));
    for (options, expected) in [
        (&["--since", &now, "--watch-law", "hill"][..], "--watch-law hill is not fitted"),
        (&["--since", &now, "--watch-law", "power", "--loss", "huber"], "compares sums of squares"),
        (&["--watch-law", "power"], "--since"),
    ] {
        let ran = run(&texts(&fit_command(&second, &then, &[&laws[..], options].concat())));
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{options:?}: {}", ran.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_leaves_the_old_output_and_what_was_finished() {
    let folder = Folder::new();
    let input = sweep(&folder, 40_000, true);
    let out = folder.text("fits.parquet", "the old output");
    // Files that may not grow beyond some megabytes stand for a full disk.
    let limited = |blocks: usize, more: &[&str]| -> Ran {
        let arguments = fit_command(&input, &out, more);
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_sweepfit")).args(arguments);
        command.output().expect("bash is there").into()
    };
    for (blocks, more, expected) in
        [(1000, &[][..], "fits.parquet: cannot be written: "), (3500, &["--resume"], "the ledger cannot be kept: ")]
    {
        let ran = limited(blocks, more);
        assert!(ran.code == 2 && ran.stderr.contains(expected) && ran.stderr.contains("too large"), "{}", ran.stderr);
        assert_eq!(std::fs::read(&out).expect("the old output"), b"the old output");
    }
    assert_eq!(folder.names(), [".fits.parquet.ledger", "fits.parquet", "scattered.parquet"]);
    let ran = run(&texts(&fit_command(&input, &out, &["--resume"])));
    assert!(ran.code == 0 && ran.stderr.contains("fitted by an earlier run"), "{}", ran.stderr);
    assert_eq!(Table::read(Path::new(&out)).rows, 40_000);
}

#[test]
fn a_table_in_parts_holds_the_rows_of_the_whole_one_and_replaces_nothing_but_its_like() {
    let folder = Folder::new();
    let input = sweep(&folder, 1_000, false);
    let (whole, parts) = (folder.file("whole.parquet"), folder.file("parts"));
    let laws = ["--law", "power"];
    assert_eq!(run(&texts(&fit_command(&input, &whole, &laws))).code, 0);
    let whole = Table::read(Path::new(&whole));
    let parted = |options: &[&str]| run(&texts(&fit_command(&input, &parts, &[&laws[..], options].concat())));
    let ran = parted(&["--partition-by", "law", "--part-rows", "400", "--resume"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for (law, name) in ["saturating_power", "power"].into_iter().enumerate() {
        let own: Vec<usize> = (0..1_000).map(|curve| 2 * curve + law).collect();
        let files = std::fs::read_dir(folder.path(&format!("parts/law={name}"))).expect("a folder").count();
        assert_eq!(files, 3);
        for (part, rows) in own.chunks(400).enumerate() {
            let found = Table::read(&folder.path(&format!("parts/law={name}/part-{part:05}.parquet")));
            assert_eq!(found.metadata["sweepfit.curves"], "1000");
            let mut expected = whole.take(rows);
            expected.names.retain(|name| name != "law");
            assert_same_rows(&expected, &found);
        }
    }
    // A second one takes the place of the first; nothing else is left beside it.
    let ran = parted(&["--part-rows", "1500"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut names: Vec<String> = std::fs::read_dir(folder.path("parts"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["_sweepfit", "part-00000.parquet", "part-00001.parquet"]);
    assert_eq!(folder.names(), ["parts", "sweep.parquet", "whole.parquet"]);
    // Its parts are read again as one table.
    let again = folder.file("again.parquet");
    let read = ["fit", &parts, "--law", "logarithmic", "--x", "points", "--y", "rmse", "--by", "curve", "-o", &again];
    assert!(run(&read).stderr.contains("1,000 curves of 2,000 rows"), "{}", run(&read).stderr);
    for (out, options, expected) in [
        (parts.as_str(), &["--partition-by", "alpha"][..], "column \"alpha\" is neither a key nor a text"),
        (&input, &["--part-rows", "5"], "is an input, too"),
        (&folder.file("."), &["--part-rows", "5"], "is an input, too"),
    ] {
        let ran = run(&texts(&fit_command(&input, out, options)));
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{options:?}: {}", ran.stderr);
    }
    let foreign = Folder::new();
    foreign.text("thesis.txt", "irreplaceable");
    let ran = run(&texts(&fit_command(&input, &foreign.file(""), &["--part-rows", "5"])));
    assert!(ran.code == 2 && ran.stderr.contains("holds other files"), "{}", ran.stderr);
    assert_eq!(foreign.names(), ["thesis.txt"]);
}
