//! The shipped binary on both backends: the answers are the same.

use crate::support::{Column, Folder, Ran, SWEEP, SWEEP_FIT, Table, command, generated, relative, run, shared};
use libtest_mimic::Failed;
use std::path::Path;
use sweepfit::fit::gpu::Gpu;

/// Relative difference of parameters, on this share of the curves that converge on both backends.
const PARAMETERS: f64 = 1e-6;
const SHARE: f64 = 0.999;
/// By how much one backend's objective may lie above the other's.
const OBJECTIVE: f64 = 1e-9;

fn fit(out: &str, arguments: &[&str], backend: &[&str]) -> Result<Table, Failed> {
    let ran = run(&[&["fit"], arguments, backend, &["-o", out]].concat());
    if ran.code != 0 {
        return Err(format!("{arguments:?} {backend:?}: exit {}\n{}", ran.code, ran.stderr).into());
    }
    Ok(Table::read(Path::new(out)))
}

/// Fits on both backends and holds one table against the other.
fn compare(gpu: &Gpu, arguments: &[&str], parameters: &[&str]) -> Result<Table, Failed> {
    let folder = Folder::new();
    let cpu = fit(&folder.file("cpu.parquet"), arguments, &["--backend", "cpu"])?;
    let adapter = &gpu.adapter().name;
    let ours = fit(&folder.file("gpu.parquet"), arguments, &["--backend", "gpu", "--adapter", adapter])?;
    if ours.metadata.get("sweepfit.backend").is_none_or(|backend| !backend.contains("gpu")) {
        return Err(format!("the metadata do not say that a GPU searched: {:?}", ours.metadata).into());
    }
    agree(&ours, &cpu, parameters)?;
    Ok(ours)
}

/// Holds a table of fits against the CPU's.
fn agree(ours: &Table, cpu: &Table, parameters: &[&str]) -> Result<(), Failed> {
    let (mut both, mut apart, mut failures) = (0, 0, Vec::new());
    for row in 0..cpu.rows.max(ours.rows) {
        let (a, b) = (&ours.texts("status")[row], &cpu.texts("status")[row]);
        let (f, g) = (ours.numbers("objective")[row], cpu.numbers("objective")[row]);
        if (f - g).abs() > OBJECTIVE * f.min(g) {
            failures.push(format!("curve {row}: {a} with {f:e}, on the CPU {b} with {g:e}"));
        }
        if a != "converged" || b != "converged" {
            apart += u64::from(a != b);
            continue;
        }
        both += 1;
        let differ = |name: &&str| {
            let off = relative(ours.numbers(name)[row], cpu.numbers(name)[row]);
            off.is_nan() || off > PARAMETERS
        };
        apart += u64::from(parameters.iter().any(differ));
    }
    // Rare curves whose best two basins are level in f64 may differ; the share allows for them.
    if apart as f64 > (1.0 - SHARE) * cpu.rows as f64 || failures.len() as f64 > (1.0 - SHARE) * cpu.rows as f64 {
        let few: Vec<&String> = failures.iter().take(5).collect();
        return Err(format!("{apart} of {} curves apart ({both} converged twice): {few:#?}", cpu.rows).into());
    }
    Ok(())
}

pub fn porian_is_fitted_as_on_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let data = shared("porian_bootstrap.parquet");
    let flags = ["--law", "power", "--x", "flops", "--y", "n_star", "--weight", "weight", "--by", "config,bootstrap"];
    let fits = compare(gpu, &[&[data.as_str()], &flags[..]].concat(), &["a", "p"])?;
    let published = Table::read(Path::new(&shared("porian_bootstrap_published.parquet")));
    let rows = published.index(&["config", "bootstrap"]);
    for (row, key) in fits.keys(&["config", "bootstrap"]).iter().enumerate() {
        let (ours, theirs) = (fits.numbers("p")[row], published.numbers("p_weighted")[rows[key]]);
        if relative(ours, theirs) > 1e-11 {
            return Err(format!("{key}: exponent {ours}, published {theirs}").into());
        }
    }
    Ok(())
}

pub fn chinchilla_is_fitted_as_on_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let data = shared("chinchilla.parquet");
    let laws: [&[&str]; 2] = [
        &["--law", "chinchilla", "--x", "params,tokens", "--y", "loss"],
        &["--law", "loss ~ E + A*params^-alpha + B*tokens^-beta"],
    ];
    for law in laws {
        for flags in [&["--loss", "huber:1e-3"][..], &[], &["--space", "linear"]] {
            let arguments = [&[data.as_str(), "--where", "not excluded_outlier"], law, flags].concat();
            compare(gpu, &arguments, &["E", "A", "B", "alpha", "beta"])?;
        }
    }
    Ok(())
}

pub fn a_ragged_sweep_is_fitted_as_on_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    let sweep = folder.file("sweep.parquet");
    let recipe = "generate --law saturating_power --curves 2000 --points 8:64 --x x=1:1e4 --param E=1.5:2.5 --param A=5:15 \
                  --param alpha=0.1:0.6 --noise 0.02 --seed 7 -q -o";
    let recipe: Vec<&str> = recipe.split_whitespace().chain([sweep.as_str()]).collect();
    assert_eq!(run(&recipe).code, 0);
    let law = ["--law", "saturating_power", "--x", "x", "--y", "y", "--by", "curve"];
    for flags in [&[][..], &["--space", "linear"]] {
        compare(gpu, &[&[sweep.as_str()], &law[..], flags].concat(), &["E", "A", "alpha"])?;
    }
    Ok(())
}

/// By how much, as a share of it, an objective may lie above the other backend's before it is another valley's.
const VALLEY: f64 = 1e-7;

/// Fits on both backends; every curve has to end equally low.
fn end_equally_low(gpu: &Gpu, arguments: &[&str]) -> Result<(), Failed> {
    let folder = Folder::new();
    let backend = |name: &'static str| ["--backend", name, "--adapter", gpu.adapter().name.as_str()];
    let cpu = fit(&folder.file("cpu.parquet"), arguments, &backend("cpu")[..2])?;
    let ours = fit(&folder.file("gpu.parquet"), arguments, &backend("gpu"))?;
    let mut apart = Vec::new();
    for (row, (&a, &b)) in ours.numbers("objective").iter().zip(cpu.numbers("objective")).enumerate() {
        if (a - b).abs() > VALLEY * a.min(b) || a.is_nan() != b.is_nan() {
            apart.push(format!("curve {row}: {a:e}, on the CPU {b:e}"));
        }
    }
    if apart.is_empty() { Ok(()) } else { Err(format!("{arguments:?}: {apart:#?}").into()) }
}

pub fn noisy_curves_end_as_low_as_on_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    for (law, noise) in [("saturating_power", "1"), ("saturating_exponential", "0.3")] {
        let recipe = format!("--law {law} --curves 400 --points 12:60 --noise {noise} --seed 3");
        let sweep = generated(&folder, "noisy.parquet", &recipe);
        end_equally_low(gpu, &[&sweep, "--law", law, "--x", "x", "--y", "y", "--by", "curve"])?;
    }
    Ok(())
}

pub fn learning_curves_end_as_low_as_on_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let data = shared("lcdb.parquet");
    let columns = ["--x", "train_size", "--y", "error_rate", "--by", "dataset_id,learner,split"];
    for space in ["log", "linear"] {
        let law = ["--law", "saturating_power", "--space", space];
        end_equally_low(gpu, &[&[data.as_str()], &law[..], &columns].concat())?;
    }
    Ok(())
}

pub fn a_bench_measures_both_devices_and_verifies_their_answers(gpu: &Gpu) -> Result<(), Failed> {
    let arguments = "bench --workload W3 --curves 10 --threads 1 --repeat 1 --json -q --adapter";
    let arguments: Vec<&str> = arguments.split_whitespace().chain([gpu.adapter().name.as_str()]).collect();
    let ran = run(&arguments);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).map_err(|error| format!("{error}: {ran:?}"))?;
    let runs = told["workloads"][0]["runs"].as_array().ok_or("no runs")?;
    let backends: Vec<_> = runs.iter().map(|run| run["backend"].as_str()).collect();
    if backends != [Some("cpu"), Some("gpu")] || runs[1]["adapter"] != gpu.adapter().to_string() {
        return Err(format!("{told:#}").into());
    }
    for run in runs {
        let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
        if run["reached_of"] != 10 || number(&run["reached"]) != 1.0 {
            return Err(format!("{run:#}").into());
        }
        let stages = ["read", "pack", "search", "refine", "judge", "write"].map(|stage| number(&run["stages"][stage]));
        // Not written as `>`: NaN fails.
        let within = stages.iter().sum::<f64>() <= number(&run["stages"]["wall"]);
        if !within || run["device"].is_object() != (run["backend"] == "gpu") {
            return Err(format!("{run:#}").into());
        }
    }
    Ok(())
}

pub fn a_shifted_parameter_is_found_out(_: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    let arguments = [&[SWEEP], &SWEEP_FIT[..]].concat();
    let fits = fit(&folder.file("fits.parquet"), &arguments, &["--backend", "cpu"])?;
    agree(&fits, &fits, &["E", "A", "alpha"])?;
    for name in ["alpha", "objective"] {
        let mut shifted = fits.clone();
        let Some(Column::Numbers(values)) = shifted.columns.get_mut(name) else { panic!("{name} is a number") };
        values.iter_mut().for_each(|value| *value *= 1.0 + 2e-6);
        if agree(&shifted, &fits, &["E", "A", "alpha"]).is_ok() {
            return Err(format!("{name} shifted by 2e-6 passes").into());
        }
    }
    Ok(())
}

pub fn an_adapter_of_another_name_is_refused_with_the_list(gpu: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let arguments = ["fit", SWEEP, "--backend", "gpu", "--adapter", "no such card", "-o", &out];
    let ran: Ran = command(&arguments).args(SWEEP_FIT).output().expect("the binary starts").into();
    let told = ran.stderr.contains("no adapter's name contains \"no such card\"; found:");
    if ran.code != 2 || !told || !ran.stderr.contains(&gpu.adapter().name) || !folder.names().is_empty() {
        return Err(format!("{ran:?}").into());
    }
    Ok(())
}
