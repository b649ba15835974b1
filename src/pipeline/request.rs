//! What is asked of a run: the input, the laws and the devices that search for them, the outputs.
//!
//! Out: a [`Request`], valid as far as its types can say. Knows no threads and no files' contents.

use super::columns::Extras;
use super::watch::Watch;
use crate::error::Result;
use crate::fit::Backend;
use crate::fit::cpu::Cpu;
use crate::fit::pack::{NamedControl, Plan};
use crate::fit::spell::Spelling;
use crate::law::Law;
use crate::law::catalogue::CATALOGUE;
use crate::statistics::selection::Contestant;
use crate::table::{Memory, Parting, Selection, Source};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// All that is asked of a run.
#[derive(Debug)]
pub struct Request {
    /// The input.
    pub source: Source,
    /// The columns that the plans were made for, in their order, the keys and the filter.
    pub selection: Selection,
    /// In the order in which a curve's rows shall come.
    pub fits: Vec<Fit>,
    /// Columns beyond the usual ones.
    pub extras: Extras,
    /// A path, or `-` for CSV on standard output.
    pub out: String,
    /// Where `out` is to be a folder of parts: how they are made.
    pub parts: Option<Parting>,
    /// How many random curves are fitted again by brute force, for every law.
    pub verify: usize,
    /// What rows may take that do not lie together; none: as much as they need.
    pub memory: Option<Memory>,
    /// How the run stands to those before it.
    pub rerun: Rerun,
    /// Threads that fit, and as many that decode; the result does not depend on it.
    pub threads: usize,
    /// Set from outside, ends the run with [`Error::Interrupted`](crate::Error::Interrupted) within a
    /// fraction of a second.
    pub interrupted: Arc<AtomicBool>,
}

/// How a run stands to those before it.
#[derive(Debug, Clone, Default)]
pub struct Rerun {
    /// Keep a [`Ledger`](super::Ledger) of finished work in this file, and go on behind what an earlier run left there.
    pub ledger: Option<PathBuf>,
    /// Where the ledger, or the fits of [`Rerun::since`], are of another input, job or version: begin anew, and say so in a
    /// note, where else the run is refused.
    pub or_begin_anew: bool,
    /// Why it begins anew, as far as that is known already.
    pub anew: Vec<String>,
    /// The fits of an earlier run: curves whose rows are what they were are carried over, the others are fitted.
    pub since: Option<Source>,
    /// Test the new points of curves that had a fit then against that fit.
    pub watch: Option<Watch>,
}

/// Parameters of replicates in memory at a time, for each batch in flight: 8 MiB.
const DRAWS: usize = 1 << 20;

impl Request {
    /// How many curves of a batch are fitted together: all of them, but few where each has many replicates.
    pub(super) fn curves_at_once(&self) -> usize {
        let Some(resampling) = &self.extras.resampling else { return usize::MAX };
        let parameters: usize = self.fits.iter().map(|fit| fit.plan.model.len()).sum();
        (DRAWS / (parameters * resampling.bootstrap.replicates as usize)).max(1)
    }

    /// Whether the CPU fits every law.
    pub(super) fn on_cpu(&self) -> bool {
        self.fits.iter().all(|fit| fit.device.name == "cpu")
    }

    /// Where the parameters of every replicate are written, where that is asked for.
    pub(super) fn draws(&self) -> Option<&str> {
        self.extras.resampling.as_ref().and_then(|resampling| resampling.draws.as_deref())
    }

    /// The laws as a tournament sees them.
    pub(super) fn contestants(&self) -> Vec<Contestant> {
        let contestant = |fit: &Fit| {
            let law = fit.law();
            let place = CATALOGUE.iter().position(|entry| law.entry.is_some_and(|own| own.name == entry.name));
            Contestant {
                family: law.family().to_string(),
                parameters: fit.plan.model.len(),
                place: place.unwrap_or(CATALOGUE.len()),
            }
        };
        self.fits.iter().map(contestant).collect()
    }
}

/// A law and the device that searches for it.
#[derive(Debug)]
pub struct Fit {
    /// The law that is searched, ready to fit any batch; laws of one family that share it are searched once.
    pub plan: Arc<Plan>,
    /// How the law is reported, where that is another spelling of the one searched.
    pub spelling: Option<Spelling>,
    /// Where its search runs.
    pub device: Device,
}

impl Fit {
    /// Plans the search for every law, one for each family where no control names a parameter of its members. `plan` makes
    /// one law's plan under the controls given.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(
        laws: Vec<Law>,
        controls: &[NamedControl],
        plan: impl Fn(Law, &[NamedControl]) -> Result<Plan>,
    ) -> Result<Vec<(Arc<Plan>, Option<Spelling>)>> {
        let named = |law: &Law| controls.iter().any(|control| law.parameters.contains(&control.parameter));
        let mut shared: Vec<Arc<Plan>> = Vec::new();
        let mut plan_of = |law: Law| {
            if named(&law) {
                return Ok((Arc::new(plan(law, controls)?), None));
            }
            let (searched, spelling) = match Spelling::of(&law) {
                Some((searched, spelling)) => (searched, Some(spelling)),
                None => (law, None),
            };
            if let Some(known) = shared.iter().find(|known| known.law.name == searched.name) {
                return Ok((known.clone(), spelling));
            }
            // Controls on names that only the family's searched law has are not meant for its other spellings.
            shared.push(Arc::new(plan(searched, &[])?));
            Ok((shared[shared.len() - 1].clone(), spelling))
        };
        laws.into_iter().map(&mut plan_of).collect()
    }

    /// The law as reported.
    pub fn law(&self) -> &Law {
        self.spelling.as_ref().map_or(&self.plan.law, |spelling| &spelling.law)
    }

    /// The default box of free parameter `j` of [`Fit::law`] in words.
    pub fn describe_box(&self, j: usize) -> String {
        match &self.spelling {
            Some(spelling) => spelling.describe_box(j, &self.plan),
            None => self.plan.describe_box(j),
        }
    }
}

/// A backend that is open, and how it is called in reports.
#[derive(Clone)]
pub struct Device {
    /// What searches.
    pub backend: Arc<dyn Backend + Send + Sync>,
    /// `cpu` or `gpu`.
    pub name: &'static str,
    /// The GPU's name.
    pub adapter: Option<String>,
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Device {
        Device { backend: Arc::new(Cpu), name: "cpu", adapter: None }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Device({}, {:?})", self.name, self.adapter)
    }
}
