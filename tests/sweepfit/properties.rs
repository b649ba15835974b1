//! What must not change an answer: threads, order, neighbours, files, row groups; and what must change it as expected.

use crate::support::{Column, Folder, SWEEP, SWEEP_FIT, Table, fit, relative, run};
use std::path::Path;

const PARAMETERS: [&str; 3] = ["E", "A", "alpha"];

/// The shipped sweep as a table, its first `curves` curves, and where each begins and ends.
fn sweep(curves: usize) -> (Table, Vec<std::ops::Range<usize>>) {
    let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    let runs = table.texts("run");
    let starts: Vec<usize> = (0..table.rows).filter(|&row| row == 0 || runs[row] != runs[row - 1]).collect();
    let ranges: Vec<_> = starts.windows(2).map(|pair| pair[0]..pair[1]).take(curves).collect();
    let rows: Vec<usize> = (0..ranges[ranges.len() - 1].end).collect();
    (table.take(&rows), ranges)
}

fn fit_table(table: &Table, flags: &[&str]) -> Table {
    let folder = Folder::new();
    table.write(&folder.path("sweep.parquet"), 1 << 20);
    fit(&folder.file("sweep.parquet"), &[&SWEEP_FIT, flags].concat())
}

/// Holds two tables of fits against each other by key, bit by bit where `tolerance` is 0.
fn same(a: &Table, b: &Table, tolerance: f64) {
    let rows = b.index(&["run"]);
    assert_eq!(a.rows, b.rows);
    for (row, run) in a.texts("run").iter().enumerate() {
        let other = rows[run];
        assert_eq!(a.texts("status")[row], b.texts("status")[other], "{run}");
        for name in PARAMETERS {
            let (x, y) = (a.numbers(name)[row], b.numbers(name)[other]);
            let equal = x.to_bits() == y.to_bits() || relative(x, y) <= tolerance || x.is_nan() && y.is_nan();
            assert!(equal, "{run}: {name} is {x} and {y}, tolerance {tolerance}");
        }
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let folder = Folder::new();
    let [one, two] = ["1", "2"].map(|threads| {
        let out = folder.file(&format!("{threads}.parquet"));
        let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &["--threads", threads, "-o", &out]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        std::fs::read(out).expect("the fits")
    });
    assert!(one == two, "{} and {} bytes", one.len(), two.len());
}

#[test]
fn permuting_curves_permutes_results() {
    let (table, ranges) = sweep(100);
    // 37 and 100 have no common factor: every curve once, none beside its old neighbour.
    let order: Vec<usize> = (0..100).flat_map(|i| ranges[i * 37 % 100].clone()).collect();
    let permuted = fit_table(&table.take(&order), &[]);
    assert_eq!(permuted.texts("run")[1], "c00000037");
    same(&permuted, &fit_table(&table, &[]), 1e-9);
}

#[test]
fn permuting_points_changes_only_the_rounding() {
    let (table, ranges) = sweep(60);
    let order: Vec<usize> = ranges.iter().flat_map(|range| range.clone().rev()).collect();
    same(&fit_table(&table.take(&order), &[]), &fit_table(&table, &[]), 1e-8);
}

#[test]
fn a_poisoned_curve_leaves_its_neighbours_bit_identical() {
    let (table, ranges) = sweep(64);
    for (poison, flags) in [(f64::INFINITY, &[][..]), (-1.0, &[]), (1e300, &[]), (1e-300, &["--space", "linear"])] {
        let clean = fit_table(&table, flags);
        let mut poisoned = table.clone();
        let Some(Column::Numbers(loss)) = poisoned.columns.get_mut("loss") else { panic!("losses are numbers") };
        for range in ranges.iter().step_by(7) {
            loss[range.start] = poison;
        }
        let fits = fit_table(&poisoned, flags);
        let healthy: Vec<usize> = (0..64).filter(|curve| curve % 7 != 0).collect();
        same(&fits.take(&healthy), &clean.take(&healthy), 0.0);
        if poison.is_infinite() || poison < 0.0 {
            assert_eq!(fits.texts("status")[7], "bad_domain", "poisoned by {poison}");
        }
    }
}

#[test]
fn scattered_curves_equal_contiguous_ones() {
    let (table, ranges) = sweep(50);
    // Round by round, one row of every curve that has one left: the order within each curve stays.
    let longest = ranges.iter().map(|range| range.len()).max().expect("curves");
    let order: Vec<usize> = (0..longest)
        .flat_map(|round| ranges.iter().filter(move |range| round < range.len()).map(move |range| range.start + round))
        .collect();
    let (scattered, contiguous) = (fit_table(&table.take(&order), &[]), fit_table(&table, &[]));
    assert_eq!(scattered.texts("run"), contiguous.texts("run"));
    same(&scattered, &contiguous, 0.0);
}

#[test]
fn scaling_y_scales_amplitudes_and_nothing_else() {
    const FACTOR: f64 = 1000.0;
    let (table, _) = sweep(100);
    for space in ["log", "linear"] {
        let before = fit_table(&table, &["--space", space]);
        let mut scaled = table.clone();
        let Some(Column::Numbers(loss)) = scaled.columns.get_mut("loss") else { panic!("losses are numbers") };
        loss.iter_mut().for_each(|value| *value *= FACTOR);
        let after = fit_table(&scaled, &["--space", space]);
        for row in 0..before.rows {
            for (name, factor) in [("E", FACTOR), ("A", FACTOR), ("alpha", 1.0), ("E_se", FACTOR), ("alpha_se", 1.0)] {
                let (a, b) = (after.numbers(name)[row], factor * before.numbers(name)[row]);
                assert!(relative(a, b) <= 1e-7, "{space}, curve {row}: {name} is {a}, expected {b}");
            }
        }
    }
}

#[test]
fn several_row_groups_and_files_equal_one() {
    let (table, ranges) = sweep(100);
    let folder = Folder::new();
    let whole = fit_table(&table, &[]);
    // Groups of 13 rows cut nearly every curve.
    table.write(&folder.path("groups.parquet"), 13);
    same(&fit(&folder.file("groups.parquet"), &SWEEP_FIT), &whole, 0.0);
    // The border between the files lies within a curve.
    let cut = ranges[40].start + 3;
    std::fs::create_dir(folder.path("files")).expect("a folder");
    for (name, rows) in [("files/a.parquet", 0..cut), ("files/b.parquet", cut..table.rows)] {
        table.take(&rows.collect::<Vec<_>>()).write(&folder.path(name), 1 << 20);
    }
    for input in ["files", "files/*.parquet"] {
        same(&fit(&folder.file(input), &SWEEP_FIT), &whole, 0.0);
    }
}

#[test]
fn a_weight_of_two_is_a_row_given_twice() {
    let (mut table, _) = sweep(50);
    let twice: Vec<usize> = (0..table.rows).flat_map(|row| std::iter::repeat_n(row, 1 + row % 2)).collect();
    let doubled = table.take(&twice);
    let weight = (0..table.rows).map(|row| (1 + row % 2) as f64).collect();
    table.names.push("times".into());
    table.columns.insert("times".into(), Column::Numbers(weight));
    let (weighted, repeated) = (fit_table(&table, &["--weight", "times"]), fit_table(&doubled, &[]));
    same(&weighted, &repeated, 1e-8);
}

#[test]
fn a_function_around_both_sides_is_searched_like_what_stands_inside() {
    // Typical differences of two objectives on one curve.
    const STANDARD_ERRORS: f64 = 4.0;
    let (table, ranges) = sweep(60);
    let curves = ranges.len();
    let folder = Folder::new();
    table.write(&folder.path("sweep.parquet"), 1 << 20);
    let fit_law =
        |law: &str, space: &str| fit(&folder.file("sweep.parquet"), &["--law", law, "--space", space, "--by", "run"]);
    let plain = fit_law("loss ~ E + A*tokens^-alpha", "log");
    for law in [
        "log1p(loss) ~ log1p(E + A*tokens^-alpha)",
        "sqrt(loss) ~ sqrt(E + A*tokens^-alpha)",
        "loss^2 ~ (E + A*tokens^-alpha)^2",
        "expm1(loss) ~ expm1(E + A*tokens^-alpha)",
        "1/loss ~ 1/(E + A*tokens^-alpha)",
        "log(loss)^2 ~ log(E + A*tokens^-alpha)^2",
    ] {
        for space in ["log", "linear"] {
            let found = fit_law(law, space);
            let near = (0..curves).filter(|&row| {
                let apart = (found.numbers("alpha")[row] - plain.numbers("alpha")[row]).abs();
                apart <= STANDARD_ERRORS * plain.numbers("alpha_se")[row]
            });
            let (near, statuses) = (near.count(), found.statuses());
            assert!(near >= curves - 1, "{law} in {space} space: {near} of {curves}, {statuses:?}");
        }
    }
}
