//! Inputs and outputs in a store: what a run reads, what it leaves there, and that no fault changes a byte.

use crate::support::store::{Asked, Fault, Server};
use crate::support::{Folder, Ran, SWEEP, SWEEP_FIT, Table, command, run};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs the binary with the server as its store.
fn run_with(server: &Server, arguments: &[&str]) -> Ran {
    command(arguments).envs(server.environment()).output().expect("the binary starts").into()
}

fn sweep() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP)).expect("the shipped sweep")
}

/// The shipped sweep with columns that no fit needs, in several row groups.
fn wide_sweep(folder: &Folder) -> Vec<u8> {
    let mut table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    for column in 0..8 {
        // Digits without order, which do not compress.
        let ballast =
            (0..table.rows as u64).map(|row| (row * 2_654_435_761 % 1_000_003) as f64 * 1.1e-3 + column as f64);
        let name = format!("ballast {column}");
        table.columns.insert(name.clone(), crate::support::Column::Numbers(ballast.collect()));
        table.names.insert(column % 2, name);
    }
    table.write(&folder.path("wide.parquet"), 4_000);
    fs::read(folder.path("wide.parquet")).expect("the file")
}

/// The fits of a local file as bytes; the methods card names the input, so it is given a name of its own.
fn rows(bytes: &[u8], folder: &Folder, name: &str) -> Table {
    fs::write(folder.path(name), bytes).expect("a file");
    let mut table = Table::read(&folder.path(name));
    table.metadata.remove("sweepfit.inputs");
    table.metadata.remove("ARROW:schema");
    table
}

fn assert_equal(one: &Table, other: &Table) {
    assert_eq!((&one.names, one.rows), (&other.names, other.rows));
    for name in &one.names {
        // NaN stands for null and is not equal to itself; its text is.
        assert_eq!(format!("{:?}", one.columns[name]), format!("{:?}", other.columns[name]), "{name}");
    }
    assert_eq!(one.metadata, other.metadata);
}

#[test]
fn a_fit_from_a_store_into_a_store_equals_the_local_one_and_reads_only_what_it_needs() {
    let (folder, server) = (Folder::new(), Server::start());
    let bytes = wide_sweep(&folder);
    server.put("warehouse/runs/wide.parquet", bytes.clone());
    let ran = run_with(
        &server,
        &[&["fit", "s3://warehouse/runs/wide.parquet"], &SWEEP_FIT[..], &["-o", "s3://warehouse/fits/fits.parquet"]]
            .concat(),
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("500 curves of 17,431 rows"), "{}", ran.stderr);
    let local = folder.file("local.parquet");
    let here = folder.file("wide.parquet");
    assert_eq!(run(&[&["fit", &here], &SWEEP_FIT[..], &["-o", &local]].concat()).code, 0);
    let stored = server.get("warehouse/fits/fits.parquet").expect("the table");
    assert_equal(
        &rows(&stored, &folder, "stored.parquet"),
        &rows(&fs::read(&local).expect("fits"), &folder, "again.parquet"),
    );
    let sent: usize =
        server.asked().iter().filter(|asked| asked.path.ends_with("wide.parquet")).map(|asked| asked.sent).sum();
    assert!(sent < bytes.len() / 2, "{sent} of {} bytes were fetched", bytes.len());
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn folders_and_patterns_in_a_store_are_read_as_on_a_disk() {
    let (folder, server) = (Folder::new(), Server::start());
    let whole = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    for (size, range) in [("small", 0..6_000), ("large", 6_000..whole.rows)] {
        let part = whole.take(&range.collect::<Vec<_>>());
        let name = format!("size={size}/part-0.parquet");
        fs::create_dir_all(folder.path(&format!("runs/size={size}"))).expect("a folder");
        part.write(&folder.path(&format!("runs/{name}")), 1_000);
        server.put(&format!("b/runs/{name}"), fs::read(folder.path(&format!("runs/{name}"))).expect("a file"));
    }
    server.put("b/runs/_SUCCESS", Vec::new());
    server.put("b/runs/readme.md", b"hello".to_vec());
    let flags = ["--law", "saturating_power", "--x", "tokens", "--y", "loss", "--by", "size,run", "-q", "-o", "-"];
    let here = run(&[&["fit", &folder.file("runs")], &flags[..]].concat());
    assert_eq!(here.code, 0, "{}", here.stderr);
    for input in ["s3://b/runs", "s3://b/runs/", "s3://b/runs/*/*.parquet", "s3://b/run?/size=*/"] {
        let there = run_with(&server, &[&["fit", input], &flags[..]].concat());
        assert_eq!((there.code, &there.stdout), (0, &here.stdout), "{input}\n{}", there.stderr);
    }
}

#[test]
fn csv_and_arrow_are_read_from_a_store_and_over_http_with_and_without_ranges() {
    let folder = Folder::new();
    let mut text = String::from("run,x,y\n");
    for x in 1..40 {
        text += &format!("a,{x},{}\n", 2.0 + 30.0 * f64::from(x).powf(-0.5));
    }
    let csv = folder.text("t.csv", &text);
    let flags = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "run", "-q"];
    let here = run(&[&["fit", &csv], &flags[..], &["-o", "-"]].concat());
    assert_eq!(here.code, 0, "{}", here.stderr);
    for server in [Server::start(), Server::without_ranges()] {
        server.put("files/t.csv", text.clone().into_bytes());
        server.put("files/sweep.parquet", sweep());
        let url = format!("http://{}/files/t.csv", server.address);
        let there = run(&[&["fit", &url], &flags[..], &["-o", "-"]].concat());
        assert_eq!((there.code, &there.stdout), (0, &here.stdout), "{}", there.stderr);
        let url = format!("http://{}/files/sweep.parquet", server.address);
        let out = format!("http://{}/files/fits.arrow", server.address);
        let ran = run(&[&["fit", &url], &SWEEP_FIT[..], &["--covariance", "-o", &out]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let fits = server.get("files/fits.arrow").expect("fits");
        assert_eq!(&fits[..6], b"ARROW1");
    }
}

/// A fit under faults: what came of it.
fn under(decide: impl Fn(usize, &Asked) -> Fault + Send + Sync + 'static) -> (Ran, Server, Duration) {
    let server = Server::faulty(decide);
    server.put("w/sweep.parquet", sweep());
    let began = Instant::now();
    let fit = ["fit", "s3://w/sweep.parquet"];
    let ran = run_with(&server, &[&fit[..], &SWEEP_FIT, &["-o", "s3://w/fits.parquet"]].concat());
    (ran, server, began.elapsed())
}

#[test]
fn throttling_resets_and_truncated_answers_change_no_byte() {
    let (clean, server, _) = under(|_, _| Fault::None);
    assert_eq!(clean.code, 0, "{}", clean.stderr);
    let expected = server.get("w/fits.parquet").expect("fits");
    for fault in [Fault::Throttle, Fault::Broken, Fault::Reset, Fault::Truncate] {
        for every in [2, 3] {
            let (ran, server, _) = under(move |number, _| if number % every == 0 { fault } else { Fault::None });
            assert_eq!(ran.code, 0, "{fault:?} at every {every}th request\n{}", ran.stderr);
            assert!(server.get("w/fits.parquet").as_ref() == Some(&expected), "{fault:?} at every {every}th request");
        }
    }
}

#[test]
fn an_answer_that_is_lost_after_the_request_was_heard_loses_nothing() {
    for store in 0..3 {
        // What completes an upload: a POST with its parts, or Azure's list of blocks.
        let completes = |asked: &Asked| {
            asked.method == "POST" && asked.query.contains("uploadId") || asked.query.contains("blocklist")
        };
        let server = Server::faulty(move |_, asked| if completes(asked) { Fault::Truncate } else { Fault::None });
        let (scheme, environment) = stores(&server)[store].clone();
        server.put("w/fits.parquet", b"yesterday's".to_vec());
        let out = format!("{scheme}://w/fits.parquet");
        let ran = run_in(&environment, &[&["fit", SWEEP], &SWEEP_FIT[..], &["-o", &out]].concat());
        assert_eq!(ran.code, 0, "{scheme}: {}", ran.stderr);
        assert_eq!(&server.get("w/fits.parquet").expect("fits")[..4], b"PAR1");
    }
}

#[test]
fn a_table_of_several_parts_survives_faults_of_every_kind() {
    let folder = Folder::new();
    let sweep = folder.file("sweep.parquet");
    let made =
        run(&["generate", "--law", "saturating_power", "--curves", "40000", "--points", "8", "-q", "-o", &sweep]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let flags =
        ["--law", "power", "--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve", "--covariance", "-q"];
    let local = folder.file("local.parquet");
    assert_eq!(run(&[&["fit", &sweep], &flags[..], &["-o", &local]].concat()).code, 0);
    let server = Server::faulty(|number, _| match number % 11 {
        1 => Fault::Throttle,
        4 => Fault::Reset,
        6 => Fault::Broken,
        9 => Fault::Truncate,
        _ => Fault::None,
    });
    server.put("w/sweep.parquet", fs::read(&sweep).expect("the sweep"));
    let ran =
        run_with(&server, &[&["fit", "s3://w/sweep.parquet"], &flags[..], &["-o", "s3://w/fits.parquet"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let stored = server.get("w/fits.parquet").expect("the table");
    let parts = server.asked().iter().filter(|asked| asked.query.contains("partNumber")).count();
    assert!(parts > 1 && stored.len() > 8 << 20, "{parts} parts, {} bytes", stored.len());
    let local = fs::read(&local).expect("fits");
    assert_equal(&rows(&stored, &folder, "stored.parquet"), &rows(&local, &folder, "again.parquet"));
}

#[test]
fn a_store_that_stays_broken_is_named_with_its_answer_and_nothing_half_appears() {
    for (fault, expected) in [(Fault::Deny, "403 Forbidden"), (Fault::Deny, "credentials do not allow it")] {
        let (ran, server, _) = under(move |_, _| fault);
        assert_eq!(ran.code, 2);
        assert!(
            ran.stderr.contains("s3://w/sweep.parquet: cannot be read") && ran.stderr.contains(expected),
            "{}",
            ran.stderr
        );
        assert_eq!(server.names(), ["w/sweep.parquet"]);
    }
    // Reading goes well and writing does not.
    let (ran, server, _) =
        under(|_, asked| if asked.method == "GET" || asked.method == "HEAD" { Fault::None } else { Fault::Deny });
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("s3://w/fits.parquet: cannot be written"), "{}", ran.stderr);
    assert_eq!(server.names(), ["w/sweep.parquet"]);
    // The last request of all is refused: what was there before stays, and the parts are given back.
    let server = Server::faulty(|_, asked| {
        let completes = asked.method == "POST" && asked.query.contains("uploadId");
        if completes { Fault::Deny } else { Fault::None }
    });
    server.put("w/sweep.parquet", sweep());
    server.put("w/fits.parquet", b"yesterday's".to_vec());
    let fit = ["fit", "s3://w/sweep.parquet"];
    let ran = run_with(&server, &[&fit[..], &SWEEP_FIT, &["-o", "s3://w/fits.parquet"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("AccessDenied"), "{}", ran.stderr);
    assert_eq!(server.get("w/fits.parquet").as_deref(), Some(&b"yesterday's"[..]));
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn what_is_not_there_is_named_with_the_repair() {
    let server = Server::start();
    server.put("b/notes/readme.md", b"hello".to_vec());
    let web = format!("http://{}/files/*.parquet", server.address);
    let query = format!("http://{}/a.parquet?key=1", server.address);
    for (input, expected) in [
        ("s3://b/none.parquet", "no such object or folder; check bucket and path"),
        ("s3://b/notes/", "holds no table"),
        ("s3://b/notes/*.parquet", "no object matches"),
        ("s3://b/notes/readme.md", "is of no known format"),
        (web.as_str(), "name them one by one"),
        (query.as_str(), "queries are not sent"),
    ] {
        let ran = run_with(&server, &["fit", input, "--law", "power", "--x", "x", "--y", "y", "-o", "-"]);
        assert!(
            ran.code == 2 && ran.stderr.contains(expected) && ran.stderr.contains(input),
            "{input}\n{}",
            ran.stderr
        );
    }
    let ran = run_with(&server, &[&["fit", SWEEP], &SWEEP_FIT[..], &["-o", "s3://b/"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("is a folder"), "{}", ran.stderr);
}

#[test]
fn predictions_are_made_from_fits_in_a_store() {
    let server = Server::start();
    server.put("w/sweep.parquet", sweep());
    let fit = [&["fit", "s3://w/sweep.parquet"], &SWEEP_FIT[..], &["--covariance", "-o", "s3://w/day=1/fits.parquet"]]
        .concat();
    let ran = run_with(&server, &fit);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran =
        run_with(&server, &["predict", "s3://w/day=1/fits.parquet", "--at", "tokens=1e12", "-o", "s3://w/ahead.csv"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(server.get("w/ahead.csv").expect("predictions").split(|byte| *byte == b'\n').count(), 502);
}

#[cfg(unix)]
#[test]
fn a_run_that_waits_for_a_store_stops_within_a_second() {
    // On reading, and on writing.
    let reads: fn(usize, &Asked) -> Fault =
        |number, asked| if asked.method == "GET" && number > 4 { Fault::Stall } else { Fault::None };
    let writes: fn(usize, &Asked) -> Fault =
        |_, asked| if asked.query.contains("partNumber") { Fault::Stall } else { Fault::None };
    for decide in [reads, writes] {
        let server = Server::faulty(decide);
        let folder = Folder::new();
        server.put("w/sweep.parquet", wide_sweep(&folder));
        let fit = [&["fit", "s3://w/sweep.parquet"], &SWEEP_FIT[..], &["-o", "s3://w/fits.parquet"]].concat();
        let mut child = command(&fit).envs(server.environment()).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(child.try_wait().expect("its state"), None, "it should wait");
        let told = Instant::now();
        let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let status = child.wait().expect("its end");
        assert_eq!(status.code(), Some(2));
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
        assert_eq!(server.names(), ["w/sweep.parquet"]);
    }
}

/// The three stores that the server speaks for: what their URLs begin with, and where clients find it.
fn stores(server: &Server) -> [(&'static str, Vec<(String, String)>); 3] {
    [("s3", server.environment()), ("gs", server.as_google()), ("az", server.as_azure())]
}

fn run_in(environment: &[(String, String)], arguments: &[&str]) -> Ran {
    command(arguments).envs(environment.iter().cloned()).output().expect("the binary starts").into()
}

/// Throttling, resets, server errors and broken bodies, at one request in three.
fn shaky(number: usize, _: &Asked) -> Fault {
    match number % 12 {
        1 => Fault::Throttle,
        4 => Fault::Reset,
        7 => Fault::Broken,
        10 => Fault::Truncate,
        _ => Fault::None,
    }
}

/// The shipped sweep with a tenth of its values changed.
fn a_night_later(folder: &Folder) -> Vec<u8> {
    let mut table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    let Some(crate::support::Column::Numbers(loss)) = table.columns.get_mut("loss") else { panic!("loss is a number") };
    loss.iter_mut().step_by(350).for_each(|loss| *loss *= 1.01);
    table.write(&folder.path("later.parquet"), 4_000);
    fs::read(folder.path("later.parquet")).expect("the file")
}

#[test]
fn a_night_in_every_store_goes_on_from_the_fits_of_the_one_before_under_faults() {
    for store in 0..3 {
        let (folder, server) = (Folder::new(), Server::faulty(shaky));
        let (scheme, environment) = stores(&server)[store].clone();
        let at = |name: &str| format!("{scheme}://w/{name}");
        server.put("w/sweep.parquet", sweep());
        let (input, fits, summary) = (at("sweep.parquet"), at("fits/fits.parquet"), at("fits/summary.json"));
        let ran = run_in(&environment, &[&["fit", &input], &SWEEP_FIT[..], &["--fingerprint", "-o", &fits]].concat());
        assert_eq!(ran.code, 0, "{scheme}: {}", ran.stderr);
        server.put("w/sweep.parquet", a_night_later(&folder));
        let ledger = folder.file("ledger");
        let more = ["--since", &fits, "--resume", "--ledger", &ledger, "--summary", &summary, "-o", &fits];
        let ran = run_in(&environment, &[&["fit", &input], &SWEEP_FIT[..], &more].concat());
        assert_eq!(ran.code, 0, "{scheme}: {}", ran.stderr);
        assert!(ran.stderr.contains("450 carried over, 50 changed, 0 new; 0 curves vanished"), "{}", ran.stderr);
        assert!(!folder.path("ledger").exists());
        // As from disk to disk.
        let (here, then, now) = (folder.file("later.parquet"), folder.file("then.parquet"), folder.file("now.parquet"));
        assert_eq!(run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["--fingerprint", "-o", &then]].concat()).code, 0);
        assert_eq!(run(&[&["fit", &here], &SWEEP_FIT[..], &["--since", &then, "-o", &now]].concat()).code, 0);
        let stored = server.get("w/fits/fits.parquet").expect("fits");
        let stored = rows(&stored, &folder, "stored.parquet");
        assert_equal(&stored, &rows(&fs::read(&now).expect("fits"), &folder, "again.parquet"));
        let summary = String::from_utf8(server.get("w/fits/summary.json").expect("a summary")).expect("text");
        assert!(summary.contains("\"carried_over\": 450"), "{summary}");
    }
}

/// Names and contents below a folder, whatever the names' last part says of the content.
fn parts(server: &Server, folder: &str) -> Vec<(String, Vec<u8>)> {
    let names = server.names().into_iter().filter(|name| name.starts_with(folder) && name.ends_with(".parquet"));
    names
        .map(|name| {
            let short = name[folder.len()..name.len() - "-0123456789abcdef.parquet".len()].to_string();
            (short, server.get(&name).expect("a part"))
        })
        .collect()
}

const PARTS: [&str; 4] = ["--law", "power", "--partition-by", "law"];

#[test]
fn parts_in_every_store_are_those_on_a_disk_and_take_the_place_of_the_old_ones() {
    for store in 0..3 {
        let (folder, server) = (Folder::new(), Server::faulty(shaky));
        let (scheme, environment) = stores(&server)[store].clone();
        let out = format!("{scheme}://w/parts/");
        let into = |rows: &str| {
            let more = ["--part-rows", rows, "-o", &out];
            let ran = run_in(&environment, &[&["fit", SWEEP], &SWEEP_FIT[..], &PARTS, &more].concat());
            assert_eq!(ran.code, 0, "{scheme}: {}", ran.stderr);
        };
        into("200");
        let here = folder.file("parts");
        let more = ["--part-rows", "200", "-o", &here];
        assert_eq!(run(&[&["fit", SWEEP], &SWEEP_FIT[..], &PARTS, &more].concat()).code, 0);
        let found = parts(&server, "w/parts/");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["power/part-00000", "power/part-00001", "power/part-00002"].map(|name| format!("law={name}"));
        assert_eq!(names[..3], expected);
        assert_eq!(names.len(), 6);
        for (name, bytes) in &found {
            assert!(*bytes == fs::read(folder.path(&format!("parts/{name}.parquet"))).expect("a part"), "{name}");
        }
        let list = String::from_utf8(server.get("w/parts/_sweepfit").expect("the list")).expect("text");
        assert_eq!(list.lines().count(), 7);
        // What died while its parts appeared left one behind, and somebody left a note.
        server.put("w/parts/law=power/part-00007-00000000000000aa.parquet", b"half".to_vec());
        let read =
            ["fit", &out, "--law", "logarithmic", "--x", "points", "--y", "rmse", "--by", "run", "-q", "-o", "-"];
        let ran = run_in(&environment, &read);
        assert_eq!(ran.code, 0, "{scheme}: what is not listed was read: {}", ran.stderr);
        server.put("w/parts/readme.md", b"hello".to_vec());
        into("300");
        assert_eq!(parts(&server, "w/parts/").len(), 4);
        assert_eq!(server.names().len(), 6);
        // Read again as one table.
        let again = ["fit", &out, "--law", "logarithmic", "--x", "points", "--y", "rmse", "--by", "run", "-o", "-"];
        let ran = run_in(&environment, &again);
        assert!(ran.stderr.contains("500 curves of 1,000 rows"), "{scheme}: {}", ran.stderr);
    }
}

#[test]
fn wherever_replacing_parts_is_refused_the_old_ones_stand_alone() {
    fn is_list(asked: &Asked) -> bool {
        asked.path.ends_with("_sweepfit") && asked.method == "PUT"
    }
    fn when(told: bool, fault: Fault) -> Fault {
        if told { fault } else { Fault::None }
    }
    type Fails = fn(&Asked) -> Fault;
    let fails: [(&str, Fails); 4] = [
        ("AccessDenied", |asked| when(asked.method == "POST" && asked.query.contains("uploadId"), Fault::Deny)),
        ("AccessDenied", |asked| when(is_list(asked), Fault::Deny)),
        ("was written by another run meanwhile", |asked| when(is_list(asked), Fault::Overtake)),
        ("AccessDenied", |asked| when(asked.query.contains("partNumber"), Fault::Deny)),
    ];
    for (expected, fault) in fails {
        // The first night goes well.
        let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let told = well.clone();
        let server = Server::faulty(move |_, asked| match told.load(std::sync::atomic::Ordering::SeqCst) {
            true => Fault::None,
            false => fault(asked),
        });
        let command = [&["fit", SWEEP], &SWEEP_FIT[..], &PARTS].concat();
        assert_eq!(run_with(&server, &[&command[..], &["-o", "s3://w/parts"]].concat()).code, 0);
        let before: Vec<(String, Option<Vec<u8>>)> =
            server.names().into_iter().map(|name| (name.clone(), server.get(&name))).collect();
        well.store(false, std::sync::atomic::Ordering::SeqCst);
        let ran = run_with(&server, &[&command[..], &["--part-rows", "100", "-o", "s3://w/parts"]].concat());
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        let after: Vec<(String, Option<Vec<u8>>)> =
            server.names().into_iter().map(|name| (name.clone(), server.get(&name))).collect();
        assert!(before == after, "{expected}: {:?}", server.names());
        assert_eq!(server.open_uploads(), 0, "{expected}");
    }
}

#[test]
fn a_folder_of_other_objects_a_bucket_and_a_web_server_take_no_parts() {
    let server = Server::start();
    server.put("w/thesis/chapter.parquet", b"irreplaceable".to_vec());
    let web = format!("http://{}/parts", server.address);
    for (out, expected) in [
        ("s3://w/thesis", "holds other objects"),
        ("s3://w/", "is a whole bucket"),
        (web.as_str(), "is on a web server"),
    ] {
        let ran = run_with(&server, &[&["fit", SWEEP], &SWEEP_FIT[..], &PARTS, &["-o", out]].concat());
        assert!(ran.code == 2 && ran.stderr.contains(expected) && ran.stderr.contains(out), "{}", ran.stderr);
        assert_eq!(server.names(), ["w/thesis/chapter.parquet"]);
    }
}

#[test]
fn parts_in_a_store_are_gone_on_from_and_a_ledger_for_them_lies_here() {
    let (folder, server) = (Folder::new(), Server::start());
    let out = ["--part-rows", "120", "-o", "s3://w/parts"];
    let first = run_with(&server, &[&["fit", SWEEP], &SWEEP_FIT[..], &["--fingerprint"], &out].concat());
    assert_eq!(first.code, 0, "{}", first.stderr);
    a_night_later(&folder);
    let later = folder.file("later.parquet");
    let since = [&["fit", &later], &SWEEP_FIT[..], &["--since", "s3://w/parts"], &out].concat();
    let ran = run_with(&server, &since);
    assert!(ran.code == 0 && ran.stderr.contains("450 carried over, 50 changed"), "{}", ran.stderr);
    let ran = run_with(&server, &[&since[..], &["--resume"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("name one with --ledger"), "{}", ran.stderr);
    let ran = run_with(&server, &[&since[..], &["--resume", "--ledger", "s3://w/ledger"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("which stores cannot do"), "{}", ran.stderr);
    let absent =
        run_with(&server, &[&["fit", SWEEP], &SWEEP_FIT[..], &["--since", "s3://w/none/fits.parquet"], &out].concat());
    assert!(absent.code == 2 && absent.stderr.contains("in the first night"), "{}", absent.stderr);
}

#[test]
fn a_place_that_may_not_be_written_to_is_refused_before_the_work() {
    for store in 0..3 {
        let reads = |asked: &Asked| matches!(asked.method.as_str(), "GET" | "HEAD");
        let server = Server::faulty(move |_, asked| if reads(asked) { Fault::None } else { Fault::Deny });
        let (scheme, environment) = stores(&server)[store].clone();
        server.put("w/sweep.parquet", sweep());
        for more in [&["-o"][..], &["--part-rows", "50", "-o"]] {
            let (input, out) = (format!("{scheme}://w/sweep.parquet"), format!("{scheme}://w/fits.parquet"));
            let job = run(&[&["fit", &input], &SWEEP_FIT[..], more, &[&out], &["--print-job"]].concat()).stdout;
            let folder = Folder::new();
            let job = folder.text("job.toml", &job);
            let ran = run_in(&environment, &["run", &job, "--check"]);
            assert_eq!(ran.code, 2, "{scheme} {more:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(&out) && ran.stderr.contains("cannot be written"), "{}", ran.stderr);
            assert_eq!(server.names(), ["w/sweep.parquet"]);
        }
    }
}

#[test]
fn the_job_of_the_documentation_runs_night_after_night() {
    let (folder, server) = (Folder::new(), Server::start());
    let mut table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    let texts = |text: &str| crate::support::Column::Texts(vec![text.to_string(); table.rows]);
    let numbers = |number: f64| crate::support::Column::Numbers(vec![number; table.rows]);
    let more = [("step", numbers(2000.0)), ("split", texts("val")), ("seed", texts("1"))];
    for (name, column) in more {
        table.names.push(name.to_string());
        table.columns.insert(name.to_string(), column);
    }
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nightly.md");
    let documentation = fs::read_to_string(documentation).expect("the documentation");
    let job = documentation.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a job");
    let state = folder.file("state");
    fs::create_dir(&state).expect("a folder");
    let job = job.replace("/var/lib/sweepfit", &state).replace("/var/lib/node_exporter/textfile", &state);
    let job = folder.text("nightly.toml", &job);
    let run = |arguments: &[&str]| {
        let environment = [server.environment(), vec![("OUT".to_string(), "s3://warehouse/fits".to_string())]].concat();
        let ran = run_in(&environment, &[&["run", &job], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    for expected in ["beginning anew: s3://warehouse/fits/fits.parquet is not there", "499 carried over, 1 changed"] {
        table.write(&folder.path("runs.parquet"), 4_000);
        server.put("warehouse/runs/runs.parquet", fs::read(folder.path("runs.parquet")).expect("the file"));
        let said = run(&["--check"]);
        assert!(said.contains("2 of 2 steps in order"), "{said}");
        let said = run(&[]);
        assert!(said.contains(expected), "{said}");
        assert_eq!(fs::read_dir(&state).expect("a folder").count(), 1, "the metrics alone stay");
        let Some(crate::support::Column::Numbers(loss)) = table.columns.get_mut("loss") else { panic!("loss") };
        loss[0] *= 1.001;
    }
    assert_eq!(
        server.names(),
        ["forecast", "fits"]
            .map(|name| format!("warehouse/fits/{name}.parquet"))
            .into_iter()
            .rev()
            .chain(["warehouse/runs/runs.parquet".to_string()])
            .collect::<Vec<_>>()
    );
}
