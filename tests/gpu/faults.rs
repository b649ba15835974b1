//! A device that is lost in the middle of a run: the CPU goes on, or the run ends and can be resumed.

use crate::support::{Column, Folder, SWEEP, Table, run};
use libtest_mimic::Failed;
use std::path::Path;
use std::sync::Arc;
use sweepfit::Error;
use sweepfit::fit::fallback::Fallback;
use sweepfit::fit::gpu::{Gpu, Stage};
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Backend, Loss, Objective, Space};
use sweepfit::law::{Law, Mapping};
use sweepfit::pipeline::{self, Device, Fit, Ledger, Report, Request, Rerun};
use sweepfit::table::{Selection, Source};

/// Fits `x` and `y` of `input` by a power law with a floor.
fn fit(
    input: &str,
    [key, x, y]: [&str; 3],
    out: &str,
    resume: bool,
    backend: Arc<dyn Backend + Send + Sync>,
    name: &'static str,
) -> Result<Report, Error> {
    let path = format!("{}/{input}", env!("CARGO_MANIFEST_DIR"));
    let path = if Path::new(input).is_absolute() { input.to_string() } else { path };
    let source = Source::open(&[path])?;
    let columns: Vec<String> = source.columns().iter().map(|column| column.name.clone()).collect();
    let mapping = Mapping { x: &[x.to_string()], y: Some(y) };
    let law = Law::bind("saturating_power", &columns, mapping)?;
    let numbers = law.columns.clone();
    let objective = Objective { space: Space::Log, loss: Loss::Squares };
    let plan = Arc::new(Plan::new(law, objective, &[], Weighting::Even, false, &numbers)?);
    let request = Request {
        source,
        selection: Selection { keys: vec![key.to_string()], numbers, filter: None },
        fits: vec![Fit { plan, spelling: None, device: Device { backend, name, adapter: None } }],
        extras: Default::default(),
        out: out.to_string(),
        parts: None,
        verify: 0,
        memory: None,
        rerun: Rerun { ledger: resume.then(|| Ledger::path_of(Path::new(out))), ..Rerun::default() },
        threads: 2,
        interrupted: Default::default(),
    };
    pipeline::run(request, &mut |_| {})
}

const DATASET: [&str; 3] = ["run", "tokens", "loss"];

fn another(gpu: &Gpu) -> Result<Gpu, Failed> {
    Gpu::open(Some(&gpu.adapter().name)).map_err(|error| error.to_string().into())
}

pub fn a_device_lost_at_any_stage_is_made_up_for_by_the_cpu(gpu: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    let (on_cpu, out) = (folder.file("cpu.parquet"), folder.file("fits.parquet"));
    fit(SWEEP, DATASET, &on_cpu, false, Device::cpu().backend, "cpu").map_err(|error| error.to_string())?;
    let expected = Table::read(Path::new(&on_cpu));
    for stage in Stage::ALL {
        let lossy = Arc::new(Fallback::behind(Arc::new(another(gpu)?.with_loss_at(stage, 0))));
        let report = fit(SWEEP, DATASET, &out, false, lossy, "gpu").map_err(|error| format!("{stage:?}: {error}"))?;
        let Some((reason, searched)) = &report.lost else {
            return Err(format!("{stage:?}: the device was not lost").into());
        };
        if searched.as_slice() != std::slice::from_ref(&(0..500)) || !reason.contains(&gpu.adapter().name) {
            return Err(format!("{stage:?}: {reason}, {searched:?}").into());
        }
        let notes = report.notes.iter().filter(|note| note.contains("the CPU searched 500 curves")).count();
        let found = Table::read(Path::new(&out));
        if notes != 1 || !found.metadata["sweepfit.device_lost"].contains("[[0,500]]") {
            return Err(format!("{stage:?}: {:?} {:?}", report.notes, found.metadata).into());
        }
        for name in &expected.names {
            let same = match (&found.columns[name], &expected.columns[name]) {
                (Column::Numbers(a), Column::Numbers(b)) => {
                    a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
                }
                (Column::Texts(a), Column::Texts(b)) => a == b,
                _ => false,
            };
            if !same {
                return Err(format!("{stage:?}: {name} is not what the CPU alone finds").into());
            }
        }
    }
    Ok(())
}

pub fn a_device_that_may_not_be_replaced_leaves_a_ledger(gpu: &Gpu) -> Result<(), Failed> {
    let folder = Folder::new();
    let (input, undisturbed, out) = (folder.file("in.parquet"), folder.file("all.parquet"), folder.file("out.parquet"));
    let recipe = "generate --law saturating_power --curves 17000 --points 5 --seed 8 -q -o";
    let recipe: Vec<&str> = recipe.split_whitespace().chain([input.as_str()]).collect();
    assert_eq!(run(&recipe).code, 0);
    let names = ["curve", "x", "y"];
    let fit = |out: &str, gpu: Gpu| fit(&input, names, out, true, Arc::new(gpu), "gpu");
    fit(&undisturbed, another(gpu)?).map_err(|error| error.to_string())?;
    for (stage, times) in [(Stage::Compile, 0), (Stage::Submit, 1), (Stage::Wait, 0)] {
        match fit(&out, another(gpu)?.with_loss_at(stage, times)) {
            Err(Error::Device(_)) => {}
            other => return Err(format!("{stage:?}: {:?}", other.map(|report| report.curves)).into()),
        }
        if folder.names() != [".out.parquet.ledger", "all.parquet", "in.parquet"] {
            return Err(format!("{stage:?}: {:?}", folder.names()).into());
        }
    }
    fit(&out, another(gpu)?).map_err(|error| error.to_string())?;
    if std::fs::read(&out).ok() != std::fs::read(&undisturbed).ok() || folder.names().len() != 3 {
        return Err("the resumed run is not the undisturbed one".into());
    }
    Ok(())
}
