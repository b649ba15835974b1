//! Job files: what they mean, what they refuse, and that every option of `fit` has its key.

use crate::support::{Folder, Ran, SWEEP, SWEEP_FIT, command, run};
use std::fs;

/// The job in a folder of its own, run with `arguments` behind it.
fn run_job(folder: &Folder, text: &str, arguments: &[&str]) -> Ran {
    let job = folder.text("night.toml", text);
    run(&[&["run", &job], arguments].concat())
}

/// A fit of the first curves of the shipped sweep.
fn small_fit(folder: &Folder, out: &str) -> String {
    let out = folder.file(out);
    format!(
        "[[fit]]\ninputs = '{SWEEP}'\nlaw = 'saturating_power'\nx = 'tokens'\ny = 'loss'\nby = ['run']\n\
         where = \"run < 'c00000040'\"\ncovariance = true\noutput = '{out}'\n"
    )
}

#[test]
fn a_job_writes_the_bytes_that_its_command_lines_write() {
    let folder = Folder::new();
    let (by_job, by_hand) = (folder.file("job.parquet"), folder.file("hand.parquet"));
    let (ahead, by_hand_ahead) = (folder.file("ahead.parquet"), folder.file("hand_ahead.parquet"));
    let text = small_fit(&folder, "job.parquet")
        + &format!("[[predict]]\nname = 'ahead'\nfits = '{by_job}'\nat = ['tokens=1e12']\noutput = '{ahead}'\n");
    let ran = run_job(&folder, &text, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let filter = ["--where", "run < 'c00000040'", "--covariance", "-o", &by_hand];
    let fitted = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &filter].concat());
    assert_eq!(fitted.code, 0, "{}", fitted.stderr);
    assert_eq!(fs::read(&by_job).expect("fits"), fs::read(&by_hand).expect("fits"));
    // The table says which fits it came from, so both commands name the same.
    let predicted = run(&["predict", &by_job, "--at", "tokens=1e12", "-o", &by_hand_ahead]);
    assert_eq!(predicted.code, 0, "{}", predicted.stderr);
    assert_eq!(fs::read(&ahead).expect("predictions"), fs::read(&by_hand_ahead).expect("predictions"));
}

#[test]
fn variables_are_substituted_and_an_unset_one_is_named_with_its_place() {
    let folder = Folder::new();
    let text =
        small_fit(&folder, "fits.parquet").replace("'saturating_power'", "'${LAW:-power}'").replace(SWEEP, "${SWEEP}");
    let job = folder.text("night.toml", &text);
    let with = |variables: &[(&str, &str)]| -> Ran {
        command(&["run", &job]).envs(variables.iter().copied()).output().expect("the binary starts").into()
    };
    let ran = with(&[("SWEEP", SWEEP), ("LAW", "saturating_power")]);
    assert!(ran.code == 0 && ran.stderr.contains("saturating_power: 40 converged"), "{}", ran.stderr);
    let ran = with(&[("SWEEP", SWEEP)]);
    assert!(ran.code == 0 && ran.stderr.contains("power: 40 converged"), "{}", ran.stderr);
    let ran = with(&[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("night.toml:2:11: inputs: the variable SWEEP is not set"), "{}", ran.stderr);
}

#[test]
fn values_are_refused_as_on_the_command_line_and_pointed_at() {
    let folder = Folder::new();
    let good = small_fit(&folder, "fits.parquet");
    for (extra, expected) in [
        ("bound = ['E=0:', 'alpha=2:1']\n", "night.toml:11:18: bound: \"alpha=2:1\": LO 2 is above HI 1"),
        (
            "backend = 'cpus'\n",
            "night.toml:11:11: backend: \"cpus\" is unknown; did you mean \"cpu\"? (known: auto, cpu, gpu)",
        ),
        ("weight = 'a'\nsigma = 'b'\n", "cannot stand beside"),
        ("draws = 'd.parquet'\n", "night.toml:1:1: fit 1 lacks bootstrap"),
        ("treads = 2\n", "night.toml:11:1: unknown key \"treads\"; did you mean \"threads\"?"),
        ("threads = 0\n", "night.toml:11:11: threads: \"0\""),
        ("level = 1.5\n", "night.toml:11:9: level: \"1.5\": give a share between 0 and 1"),
    ] {
        let ran = run_job(&folder, &format!("{good}# more\n{extra}"), &[]);
        assert_eq!(ran.code, 2, "{extra}");
        assert!(ran.stderr.contains(expected), "{extra}{}\nexpected: {expected}", ran.stderr);
        assert!(ran.stderr.trim_end().ends_with('^'), "{}", ran.stderr);
    }
    let ran = run_job(&folder, &good.replace("law = 'saturating_power'\n", ""), &[]);
    assert!(ran.code == 2 && ran.stderr.contains("night.toml:1:1: fit 1 lacks law"), "{}", ran.stderr);
    // What only the step itself can know is told with its place.
    let ran = run_job(&folder, &good.replace("y = 'loss'", "y = 'los'"), &[]);
    assert!(ran.code == 2 && ran.stderr.contains("night.toml:1: fit 1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("did you mean \"loss\"?"), "{}", ran.stderr);
    assert_eq!(folder.names(), ["night.toml"]);
}

#[test]
fn a_check_finds_all_that_is_wrong_and_writes_nothing() {
    let folder = Folder::new();
    let good = small_fit(&folder, "fits.parquet")
        + &format!(
            "[[predict]]\nfits = '{}'\nat = 'tokens=1e12'\noutput = '{}'\n",
            folder.file("fits.parquet"),
            folder.file("ahead.parquet")
        );
    let ran = run_job(&folder, &good, &["--check"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("2 of 2 steps in order; nothing was run"), "{}", ran.stderr);
    assert_eq!(folder.names(), ["night.toml"]);
    let nowhere = folder.file("none/fits.parquet");
    let bad = [
        small_fit(&folder, "a.parquet").replace("'tokens'", "'token'"),
        small_fit(&folder, "b.parquet").replace("< 'c00000040'", "<"),
        small_fit(&folder, "c.parquet").replace(&folder.file("c.parquet"), &nowhere),
        small_fit(&folder, "d.parquet").replace(SWEEP, "nowhere.parquet"),
        "[[predict]]\nfits = 'neither.parquet'\nat = 'tokens=1'\noutput = '-'\n".to_string(),
        small_fit(&folder, "e.parquet"),
    ];
    let ran = run_job(&folder, &bad.concat(), &["--check"]);
    assert_eq!(ran.code, 2);
    for expected in [
        "fit 1: column \"token\"",
        "did you mean \"tokens\"?",
        "fit 2: ",
        "fit 3: ",
        "does not exist; make it first",
        "fit 4: nowhere.parquet: no such file",
        "predict 5: neither.parquet: no such file",
        "fit 6: in order",
        "5 of 6 steps cannot run",
    ] {
        assert!(ran.stderr.contains(expected), "{}\nexpected: {expected}", ran.stderr);
    }
    assert_eq!(folder.names(), ["night.toml"]);
}

#[test]
fn two_steps_may_not_write_one_file_nor_one_the_others_input() {
    let folder = Folder::new();
    let twice = small_fit(&folder, "fits.parquet") + &small_fit(&folder, "fits.parquet").replace("fits.p", "./fits.p");
    let ran = run_job(&folder, &twice, &[]);
    assert!(ran.code == 2 && ran.stderr.contains("output: fit 1 writes"), "{}", ran.stderr);
    let over = small_fit(&folder, "fits.parquet")
        + &small_fit(&folder, "x").replace(&folder.file("x"), &format!("{}/{SWEEP}", env!("CARGO_MANIFEST_DIR")));
    let ran = run_job(&folder, &over, &["--check"]);
    assert!(ran.code == 2 && ran.stderr.contains("is an input of fit 1"), "{}", ran.stderr);
}

#[test]
fn a_step_that_fails_stops_those_that_read_its_output_and_no_others() {
    let folder = Folder::new();
    let (first, ahead) = (folder.file("first.parquet"), folder.file("ahead.parquet"));
    // Left by the night before; must not be read as tonight's.
    fs::write(&first, "yesterday").expect("a file");
    let text = small_fit(&folder, "first.parquet").replace("'tokens'", "'token'")
        + &format!("[[predict]]\nfits = '{first}'\nat = 'tokens=1e12'\noutput = '{ahead}'\n")
        + &small_fit(&folder, "second.parquet");
    let ran = run_job(&folder, &text, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("predict 2: not run, since fit 1 could not"), "{}", ran.stderr);
    assert_eq!(folder.names(), ["first.parquet", "night.toml", "second.parquet"]);
    assert_eq!(fs::read_to_string(&first).expect("the old file"), "yesterday");
}

#[test]
fn the_exit_code_is_that_of_the_worst_step() {
    let folder = Folder::new();
    let few = small_fit(&folder, "a.parquet")
        .replace("covariance", "strict")
        .replace("< 'c00000040'", "< 'c00000002' and tokens < 3e7");
    let ran = run_job(&folder, &(few + &small_fit(&folder, "b.parquet")), &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
}

#[test]
fn a_job_comes_from_a_pipe_as_well() {
    use std::io::Write;
    use std::process::Stdio;
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let print =
        [&["fit", SWEEP], &SWEEP_FIT[..], &["--where", "run < 'c00000003'", "-o", &out, "--print-job"]].concat();
    let job = run(&print);
    assert_eq!((job.code, folder.names().len()), (0, 0), "{}", job.stderr);
    let mut child = command(&["run", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
    child.stdin.take().expect("a pipe").write_all(job.stdout.as_bytes()).expect("the job");
    let ran: Ran = child.wait_with_output().expect("its end").into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(folder.names(), ["fits.parquet"]);
}
