//! Replicates made on the device: the same draws as on the host, and the intervals that follow.

use crate::support::{Folder, Ran, SWEEP, SWEEP_FIT, Table, command, largest, relative};
use libtest_mimic::Failed;
use std::path::Path;
use sweepfit::curves::CurveBatch;
use sweepfit::fit::gpu::Gpu;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::replicates::{Replication, Scheme};
use sweepfit::fit::{Loss, Objective, Space};
use sweepfit::law::{Law, Mapping};

/// What f32 leaves of a root, a logarithm and a few products: a few of 2⁻²³, beside a largest value of 1.
const ROUNDING: f64 = 1e-5;
const REPLICATES: u32 = 300;

/// Curves of unequal length with weights, some rows of which share a label; longer than a chunk's row limit is one.
fn data() -> (CurveBatch, Vec<f64>) {
    let mut batch = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); 3] };
    let mut labels = Vec::new();
    for curve in 0..40usize {
        for i in 0..6 + curve % 37 {
            let x = 10.0 * 1.3f64.powi(i as i32);
            let wobble = 0.05 * ((7 * i + 3 * curve) % 11) as f64 - 0.25;
            batch.columns[0].push(x);
            batch.columns[1].push((2.0 + 30.0 * x.powf(-0.4)) * wobble.exp());
            batch.columns[2].push(0.5 + (i % 3) as f64);
            labels.push((i / 2) as f64);
        }
        batch.offsets.push(batch.columns[0].len());
    }
    (batch, labels)
}

/// The worst difference between the device's rows and the host's, over every scheme, space and kind of cluster.
fn worst_difference(gpu: &Gpu) -> Result<f64, Failed> {
    let (batch, labels) = data();
    let columns = ["x", "y", "w"].map(String::from);
    let mut worst = Vec::new();
    for (space, scheme) in [Space::Log, Space::Linear].into_iter().flat_map(|s| Scheme::ALL.map(|scheme| (s, scheme))) {
        let law = Law::bind("saturating_power", &columns, Mapping { x: &columns[..1], y: Some("y") }).expect("a law");
        let objective = Objective { space, loss: Loss::Squares };
        let plan = Plan::new(law, objective, &[], Weighting::Weight(2), false, &columns).expect("a plan");
        let packed = plan.pack(&batch);
        let problem = &packed.problem;
        let clusters: &[f64] = if scheme == Scheme::Residual { &[] } else { &labels };
        let keys = (0..40).map(|curve| [0x9e37_79b9 ^ curve, 77 * curve]).collect();
        // What a law might predict: the rows' mean is as good as any.
        let mean = problem.response.iter().sum::<f64>() / problem.response.len() as f64;
        let fitted = if scheme.moves_responses() { vec![mean; problem.response.len()] } else { Vec::new() };
        let replication = Replication::new(problem, scheme, REPLICATES, keys, clusters, &[Some(3.0); 40], fitted);
        let found = gpu.rows_of_replicates(&replication)?;
        let mut host = problem.emptied();
        for (place, device) in found.iter().enumerate() {
            let (curve, replicate) = (place / REPLICATES as usize, place as u32 % REPLICATES);
            let first = host.response.len();
            replication.push(curve, replicate, &mut host);
            let rows = first..host.response.len();
            if device.is_empty() && rows.len() < 3 {
                continue;
            }
            if device.len() != rows.len() {
                return Err(
                    format!("{scheme:?}, {space:?}: {} rows of {place}, host {}", device.len(), rows.len()).into()
                );
            }
            let own = &problem.response[problem.rows(curve)];
            let heaviest = problem.weight[problem.rows(curve)].iter().copied().fold(0.0, f64::max);
            let top = own
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, |top, t| top.max(if space == Space::Log { t } else { t.abs() }));
            for (row, [t, root]) in rows.zip(device) {
                let response = host.response[row];
                let response = if space == Space::Log { response - top } else { response / top };
                worst.push((f64::from(*t) - response).abs());
                worst.push((f64::from(*root) - (host.weight[row] / heaviest).sqrt()).abs());
            }
        }
    }
    Ok(largest(worst))
}

pub fn replicates_are_drawn_as_on_the_host(gpu: &Gpu) -> Result<(), Failed> {
    let worst = worst_difference(gpu)?;
    // Not written as `>`: NaN fails.
    if worst <= ROUNDING { Ok(()) } else { Err(format!("rows differ by {worst}").into()) }
}

pub fn a_generator_of_other_numbers_is_found_out(gpu: &Gpu) -> Result<(), Failed> {
    let open = || Gpu::open(Some(&gpu.adapter().name));
    for (what, other) in [("0x1bd11bdau", "0x1bd11bdbu"), ("(index & 1u) == 1u", "(index & 1u) == 0u")] {
        let faulty = open()?.with_faulty_driver(move |text| text.replace(what, other));
        if worst_difference(&faulty).is_ok_and(|worst| worst <= ROUNDING) {
            return Err(format!("{other} for {what} passes").into());
        }
    }
    Ok(())
}

pub fn intervals_are_those_of_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    // The same replicates, at most a twentieth of a standard deviation off: percentiles move by less.
    const OF_ERROR: f64 = 0.05;
    let folder = Folder::new();
    for scheme in Scheme::ALL {
        let bootstrap = format!("200:{}", scheme.name());
        let some = ["--where", "run < 'c00000012'", "--bootstrap", &bootstrap];
        let fit = |name: &str, backend: &[&str]| -> Result<(Ran, Table), Failed> {
            let out = folder.file(name);
            let arguments = [&["fit", SWEEP], &SWEEP_FIT[..], &some, backend, &["-o", &out]].concat();
            let ran: Ran = command(&arguments).output().expect("the binary starts").into();
            if ran.code != 0 {
                return Err(ran.stderr.into());
            }
            Ok((ran, Table::read(Path::new(&out))))
        };
        let (_, cpu) = fit("cpu.parquet", &["--backend", "cpu"])?;
        let adapter = ["--backend", "gpu", "--adapter", &gpu.adapter().name, "--threads"];
        let (ran, device) = fit("gpu.parquet", &[&adapter[..], &["1"]].concat())?;
        fit("again.parquet", &[&adapter[..], &["2"]].concat())?;
        let bytes = |name: &str| std::fs::read(folder.path(name)).expect("a table");
        if bytes("gpu.parquet") != bytes("again.parquet") {
            return Err(format!("{scheme:?}: two threads give other bytes than one").into());
        }
        let told = "stand as the device left them";
        if !ran.stderr.contains(told) {
            return Err(format!("{scheme:?} was judged on the host throughout\n{}", ran.stderr).into());
        }
        for row in 0..cpu.rows {
            for name in ["E", "A", "alpha"] {
                let [low, high, error] = [format!("{name}_lo"), format!("{name}_hi"), format!("{name}_boot_se")]
                    .map(|name| (cpu.numbers(&name)[row], device.numbers(&name)[row]));
                let apart = largest([low, high].map(|(ours, theirs)| (ours - theirs).abs() / error.0));
                // A floor at the end of its ridge makes long tails, in which standard deviations are far from percentiles.
                if apart > OF_ERROR || apart.is_nan() || relative(error.1, error.0) > OF_ERROR {
                    return Err(format!("{scheme:?}, row {row}, {name}: {low:?} {high:?} {error:?}").into());
                }
            }
        }
    }
    Ok(())
}
