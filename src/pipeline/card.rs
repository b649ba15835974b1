//! What a run reports: counts and timings, and the methods card that goes into the output's metadata.
//!
//! In: the request, then tallies batch by batch. Out: a [`Report`], its `sweepfit.*` metadata and its JSON. The metadata
//! holds no timings and no number of threads: the same input, options, version and backend give the same bytes.

use super::changes::Changes;
use super::columns::{Columns, Extras, Intervals, Resampling};
use super::line::End;
use super::watch::{Tests, Watched};
use super::work::Work;
use super::{Fit, Request};
use crate::bytes::{Decoder, Encoder};
use crate::fingerprint::Fingerprint;
use crate::fit::judge::Verdicts;
use crate::fit::pack::{Control, INFINITE, Packed, Plan, Weighting};
use crate::fit::{Loss, Space, Status};
use crate::statistics::bootstrap::{Bootstrap, Replicates};
use crate::statistics::selection::{Criterion, Score};
use crate::table::Keys;
use crate::verify::{Sample, Verification};
use serde_json::{Value, json};
use std::ops::Range;
use std::time::Duration;

/// Time spent in each stage, summed over batches; stages of different batches overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Waiting for decoded, grouped rows.
    pub read: Duration,
    /// Raw columns to problems.
    pub pack: Duration,
    /// The backend's proposals.
    pub search: Duration,
    /// Verdicts and statistics.
    pub judge: Duration,
    /// Replicates of the bootstrap: made, searched and judged.
    pub resample: Duration,
    /// Filling columns, encoding and writing them.
    pub write: Duration,
}

impl Stages {
    /// Every stage by its name, in the order of the pipeline.
    pub fn named(&self) -> [(&'static str, Duration); 6] {
        let Stages { read, pack, search, judge, resample, write } = *self;
        [("read", read), ("pack", pack), ("search", search), ("judge", judge), ("resample", resample), ("write", write)]
    }
}

/// What became of the curves under one law.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Curves of every status, in the order of [`Status::ALL`].
    pub statuses: [u64; Status::ALL.len()],
    /// The key of the first curve of every status.
    pub first: [Option<String>; Status::ALL.len()],
    /// Rows with a null or NaN in a column that the law reads, or of weight zero.
    pub missing_rows: u64,
    /// Rows outside the law's domain that were left out on request.
    pub dropped_rows: u64,
    /// Fits whose standard errors are null since as many parameters were estimated as there are points.
    pub without_freedom: u64,
    /// Fits whose standard errors are null since the curvature has no inverse.
    pub without_curvature: u64,
    /// Replicates of the bootstrap; how many could not be fitted, and how many have a parameter at a bound.
    pub replicates: u64,
    pub replicates_failed: u64,
    pub replicates_pinned: u64,
    /// How many of them were judged in f64, the others standing as a device left them, and how far those lie apart at most:
    /// the distance of [`Replicates::apart`].
    pub replicates_judged: u64,
    pub replicates_apart: f64,
    /// Fits that could not be resampled, and fits of whose replicates fewer than half could be fitted.
    pub not_resampled: u64,
    pub too_few_replicates: u64,
    /// Curves that follow this law best, where laws are compared, and curves on which they could not be.
    pub best: Option<u64>,
    pub incomparable: u64,
    /// Curves with a fit to all points whose error on the points held out is not known.
    pub not_held_out: u64,
    /// The key of the first curve with a row outside the law's domain, and what is wrong with the row.
    pub first_bad: Option<(String, String)>,
}

impl Tally {
    /// Counts one batch.
    pub(super) fn of(packed: &Packed, verdicts: &Verdicts, keys: &Keys) -> Tally {
        let mut tally = Tally::default();
        tally.left_out(packed, |curve| keys.describe(curve));
        for (curve, status) in verdicts.status.iter().enumerate() {
            tally.enter(*status, || keys.describe(curve));
            let p = verdicts.standard_errors.len() / verdicts.status.len();
            let unknown = |j: usize| {
                let pinned = verdicts.pinned[curve] >> j & 1 == 1;
                !pinned && verdicts.standard_errors[curve * p + j].is_nan()
            };
            if status.has_parameters() && (0..p).any(unknown) {
                let estimated = p as u32 - verdicts.pinned[curve].count_ones();
                tally.without_error(verdicts.points[curve] <= estimated);
            }
        }
        tally
    }

    /// Counts a curve.
    pub(super) fn enter(&mut self, status: Status, key: impl FnOnce() -> String) {
        let at = position(status);
        self.statuses[at] += 1;
        self.first[at].get_or_insert_with(key);
    }

    /// Counts a fit whose standard errors are null, for want of freedom or of an inverse.
    pub(super) fn without_error(&mut self, no_freedom: bool) {
        let counter = if no_freedom { &mut self.without_freedom } else { &mut self.without_curvature };
        *counter += 1;
    }

    /// Counts the rows that packing left out; `key` names a curve of what was packed.
    pub(super) fn left_out(&mut self, packed: &Packed, key: impl Fn(usize) -> String) {
        self.missing_rows += packed.missing_rows as u64;
        self.dropped_rows += packed.dropped_rows as u64;
        if self.first_bad.is_none() {
            self.first_bad = packed.first_bad.as_ref().map(|(curve, reason)| (key(*curve), reason.clone()));
        }
    }

    /// Counts the replicates of one batch.
    pub(super) fn resampled(&mut self, verdicts: &Verdicts, of: &Replicates, replicates: u32) {
        for curve in (0..verdicts.status.len()).filter(|&curve| verdicts.status[curve].has_parameters()) {
            match of.fitted[curve] {
                None => self.not_resampled += 1,
                Some(fitted) => {
                    self.replicates += u64::from(replicates);
                    self.replicates_failed += u64::from(replicates - fitted);
                    self.replicates_pinned += u64::from(of.pinned[curve]);
                    self.replicates_judged += u64::from(of.judged[curve]);
                    // NaN, where all were judged, is not the larger.
                    self.replicates_apart = self.replicates_apart.max(of.apart[curve]);
                    self.too_few_replicates += u64::from(2 * fitted < replicates);
                }
            }
        }
    }

    /// Counts the errors on points held out that are not known.
    pub(super) fn held_out(&mut self, verdicts: &Verdicts, scores: &[Score]) {
        let unknown = verdicts
            .status
            .iter()
            .zip(scores)
            .filter(|(status, score)| status.has_parameters() && score.value.is_nan());
        self.not_held_out += unknown.count() as u64;
    }

    /// Counts the curves that follow this law best.
    pub(super) fn ranked<'a>(&mut self, best: impl Iterator<Item = &'a bool>, incomparable: u64) {
        self.best = Some(best.filter(|best| **best).count() as u64);
        self.incomparable = incomparable;
    }

    pub(super) fn add(&mut self, later: &Tally) {
        for at in 0..Status::ALL.len() {
            self.statuses[at] += later.statuses[at];
            if self.first[at].is_none() {
                self.first[at].clone_from(&later.first[at]);
            }
        }
        self.missing_rows += later.missing_rows;
        self.dropped_rows += later.dropped_rows;
        self.without_freedom += later.without_freedom;
        self.without_curvature += later.without_curvature;
        self.replicates += later.replicates;
        self.replicates_failed += later.replicates_failed;
        self.replicates_pinned += later.replicates_pinned;
        self.replicates_judged += later.replicates_judged;
        self.replicates_apart = self.replicates_apart.max(later.replicates_apart);
        self.not_resampled += later.not_resampled;
        self.too_few_replicates += later.too_few_replicates;
        self.best = later.best.map(|best| self.best.unwrap_or(0) + best).or(self.best);
        self.incomparable += later.incomparable;
        self.not_held_out += later.not_held_out;
        if self.first_bad.is_none() {
            self.first_bad.clone_from(&later.first_bad);
        }
    }

    /// Curves of one status.
    pub fn count(&self, status: Status) -> u64 {
        self.statuses[position(status)]
    }

    /// For a ledger.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
        let text = |encoder: &mut Encoder, text: &String| encoder.text(text);
        self.statuses.iter().for_each(|count| encoder.count(*count));
        self.first.iter().for_each(|first| encoder.option(first.as_ref(), text));
        let Tally { missing_rows, dropped_rows, without_freedom, without_curvature, .. } = self;
        let Tally { replicates, replicates_failed, replicates_pinned, not_resampled, too_few_replicates, .. } = self;
        for count in [
            missing_rows,
            dropped_rows,
            without_freedom,
            without_curvature,
            replicates,
            replicates_failed,
            replicates_pinned,
            not_resampled,
            too_few_replicates,
            &self.replicates_judged,
            &self.incomparable,
            &self.not_held_out,
        ] {
            encoder.count(*count);
        }
        encoder.numbers(&[self.replicates_apart]);
        encoder.option(self.best.as_ref(), |encoder, best| encoder.count(*best));
        encoder.option(self.first_bad.as_ref(), |encoder, (key, reason)| {
            encoder.text(key);
            encoder.text(reason);
        });
    }

    /// As it was encoded.
    pub(super) fn decode(decoder: &mut Decoder) -> Option<Tally> {
        let mut tally = Tally::default();
        for count in &mut tally.statuses {
            *count = decoder.count()?;
        }
        for first in &mut tally.first {
            *first = decoder.option(Decoder::text)?;
        }
        for count in [
            &mut tally.missing_rows,
            &mut tally.dropped_rows,
            &mut tally.without_freedom,
            &mut tally.without_curvature,
            &mut tally.replicates,
            &mut tally.replicates_failed,
            &mut tally.replicates_pinned,
            &mut tally.not_resampled,
            &mut tally.too_few_replicates,
            &mut tally.replicates_judged,
            &mut tally.incomparable,
            &mut tally.not_held_out,
        ] {
            *count = decoder.count()?;
        }
        tally.replicates_apart = *decoder.numbers()?.first()?;
        tally.best = decoder.option(Decoder::count)?;
        tally.first_bad = decoder.option(|decoder| Some((decoder.text()?, decoder.text()?)))?;
        Some(tally)
    }

    fn counts(&self) -> Value {
        Status::ALL.iter().map(|status| (status.name().to_string(), json!(self.count(*status)))).collect()
    }
}

fn position(status: Status) -> usize {
    Status::ALL.iter().position(|known| *known == status).expect("ALL lists every status")
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where the table went.
    pub out: String,
    /// Curves written, each once per law.
    pub curves: u64,
    /// How many of them an earlier run had fitted.
    pub taken_over: u64,
    /// What became of the curves since an earlier run, where one is given, and the keys of those that did not come again.
    pub changes: Option<Changes>,
    pub vanished: Vec<String>,
    /// Why nothing was gone on from, where something might have been.
    pub anew: Vec<String>,
    /// How well the earlier fits predicted new points, where that was asked for.
    pub watched: Option<Watched>,
    /// Where a device was lost under `auto`: why, and which curves, counted from 0, were searched by the CPU in its place.
    pub lost: Option<(String, Vec<Range<u64>>)>,
    /// What it is made of: tests in the order of rows, and curves that changed and could not be tested.
    pub(super) tested: Tests,
    /// Rows of the input.
    pub rows_read: u64,
    /// Rows that the filter did not keep.
    pub rows_filtered: u64,
    /// In the order of the request.
    pub laws: Vec<LawReport>,
    /// What the user should know about input and output.
    pub notes: Vec<String>,
    /// Where the time went.
    pub stages: Stages,
    /// The whole run.
    pub seconds: f64,
    /// How random fits compare with brute force, a law each; empty where it was not asked for.
    pub verifications: Vec<Verification>,
    /// The curves that are to be verified, as far as they are known.
    pub(super) sample: Sample,
    /// How many curves that may be.
    verify: usize,
    /// The part of the methods card that is known before the first curve.
    methods: Vec<(String, String)>,
}

/// What a run did with one law.
#[derive(Debug, Clone, PartialEq)]
pub struct LawReport {
    /// As in the output's `law` column.
    pub name: String,
    /// What became of the curves.
    pub tally: Tally,
    /// `cpu` or `gpu`.
    pub backend: &'static str,
    /// The GPU's name.
    pub adapter: Option<String>,
    /// A filter that keeps out most rows that are outside the law's domain.
    domain: String,
    card: Value,
}

impl LawReport {
    /// A filter that keeps out rows as the first that was outside the law's domain.
    pub fn filter(&self) -> String {
        let infinite = self.tally.first_bad.as_ref().and_then(|(_, reason)| reason.strip_suffix(INFINITE));
        infinite.map_or_else(|| self.domain.clone(), |name| format!("{} < 1e300", in_formulas(name)))
    }
}

impl Report {
    pub(super) fn new(request: &Request, columns: &Columns) -> Report {
        let laws = request.fits.iter().map(|fit| LawReport {
            name: fit.law().name.clone(),
            tally: Tally::default(),
            backend: fit.device.name,
            adapter: fit.device.adapter.clone(),
            domain: filter(&fit.plan, &request.selection.numbers),
            card: law_card(fit),
        });
        Report {
            out: request.out.clone(),
            curves: 0,
            taken_over: 0,
            changes: None,
            vanished: Vec::new(),
            anew: Vec::new(),
            watched: None,
            lost: None,
            tested: Tests::default(),
            rows_read: 0,
            rows_filtered: 0,
            laws: laws.collect(),
            notes: columns.notes().to_vec(),
            stages: Stages::default(),
            seconds: 0.0,
            verifications: Vec::new(),
            sample: Sample::default(),
            verify: request.verify,
            methods: methods(request),
        }
    }

    pub(super) fn take(&mut self, curves: usize, work: Work) {
        let own = self.curves..self.curves + curves as u64;
        self.curves = own.end;
        if let Some(reason) = work.lost {
            let (_, searched) = self.lost.get_or_insert((reason, Vec::new()));
            match searched.last_mut() {
                Some(last) if last.end == own.start => last.end = own.end,
                _ => searched.push(own),
            }
        }
        self.sample.merge(self.verify, work.sample);
        for (law, tally) in self.laws.iter_mut().zip(&work.tallies) {
            law.tally.add(tally);
        }
        self.stages.pack += work.stages.pack;
        self.stages.search += work.stages.search;
        self.stages.judge += work.stages.judge;
        self.stages.resample += work.stages.resample;
        self.stages.write += work.stages.write;
        self.tested.add(work.fits.rows() as u64, work.tested, work.untested);
        if let Some(changes) = &work.changes {
            self.changes.get_or_insert_default().add(changes);
        }
    }

    pub(super) fn end(&mut self, end: End) {
        self.rows_read = end.counts.rows_read;
        self.rows_filtered = end.counts.rows_left_out;
        self.notes.splice(0..0, end.notes);
        if let Some((reason, searched)) = &self.lost {
            let curves: u64 = searched.iter().map(|curves| curves.end - curves.start).sum();
            self.notes.push(format!("the CPU searched {curves} curves in the device's place: {reason}"));
        }
        self.stages.read = end.read;
    }

    /// Fits of a status, over all laws.
    pub fn count(&self, status: Status) -> u64 {
        self.laws.iter().map(|law| law.tally.count(status)).sum()
    }

    /// Fits that are neither converged nor converged at a bound.
    pub fn failures(&self) -> u64 {
        let good = self.count(Status::Converged) + self.count(Status::AtBound);
        self.curves * self.laws.len() as u64 - good
    }

    /// Verified fits that disagree with brute force, over all laws.
    pub fn disagreements(&self) -> usize {
        self.verifications.iter().map(|verification| verification.disagreements.len()).sum()
    }

    /// Every device that searched, each once: backend and adapter.
    pub fn devices(&self) -> Vec<(&'static str, Option<&str>)> {
        let mut devices = Vec::new();
        for law in &self.laws {
            let device = (law.backend, law.adapter.as_deref());
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        devices
    }

    /// The methods card, for the output's metadata.
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let mut card = self.methods.clone();
        let mut entry = |key: &str, value: String| card.push((key.to_string(), value));
        entry("laws", Value::from(self.law_cards()).to_string());
        entry("curves", self.curves.to_string());
        entry("rows_read", self.rows_read.to_string());
        entry("rows_left_out_by_where", self.rows_filtered.to_string());
        entry("rows_missing", self.laws.iter().map(|law| law.tally.missing_rows).sum::<u64>().to_string());
        entry("rows_dropped", self.laws.iter().map(|law| law.tally.dropped_rows).sum::<u64>().to_string());
        entry("counts", self.counts().to_string());
        if let Some(Changes { same, changed, new }) = self.changes {
            entry("curves_carried_over", same.to_string());
            entry("curves_changed", changed.to_string());
            entry("curves_new", new.to_string());
            entry("curves_vanished", self.vanished.len().to_string());
        }
        if self.lost.is_some() {
            entry("device_lost", self.device_lost().to_string());
        }
        if let Some(watched) = &self.watched {
            entry("watch", watched.to_json().to_string());
        }
        if !self.verifications.is_empty() {
            entry("verification", self.verification().to_string());
        }
        card.into_iter().map(|(key, value)| (format!("sweepfit.{key}"), value)).collect()
    }

    /// All of it, for `--summary`: the methods card, counts and timings.
    pub fn to_json(&self) -> Value {
        let mut summary: serde_json::Map<String, Value> =
            self.methods.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let stages: serde_json::Map<String, Value> =
            self.stages.named().iter().map(|(stage, time)| (stage.to_string(), json!(time.as_secs_f64()))).collect();
        let more = json!({
            "out": self.out,
            "curves": self.curves,
            "curves_taken_over": self.taken_over,
            "rows_read": self.rows_read,
            "rows_left_out_by_where": self.rows_filtered,
            "counts": self.counts(),
            "failures": self.failures(),
            "laws": self.law_cards(),
            "notes": self.notes,
            "seconds": self.seconds,
            "stages": stages,
        });
        if !self.verifications.is_empty() {
            summary.insert("verification".into(), self.verification());
        }
        if let Some(Changes { same, changed, new }) = self.changes {
            let since = json!({ "carried_over": same, "changed": changed, "new": new, "vanished": self.vanished });
            summary.insert("since".into(), since);
        }
        if !self.anew.is_empty() {
            summary.insert("began_anew".into(), json!(self.anew));
        }
        if self.lost.is_some() {
            summary.insert("device_lost".into(), self.device_lost());
        }
        if let Some(watched) = &self.watched {
            summary.insert("watch".into(), watched.to_json());
        }
        if let Value::Object(more) = more {
            summary.extend(more);
        }
        Value::Object(summary)
    }

    fn counts(&self) -> Value {
        Status::ALL.iter().map(|status| (status.name().to_string(), json!(self.count(*status)))).collect()
    }

    fn device_lost(&self) -> Value {
        let searched = |(reason, searched): &(String, Vec<Range<u64>>)| {
            let searched: Vec<[u64; 2]> = searched.iter().map(|curves| [curves.start, curves.end]).collect();
            json!({ "reason": reason, "curves_searched_by_the_cpu": searched })
        };
        self.lost.as_ref().map_or(Value::Null, searched)
    }

    fn verification(&self) -> Value {
        self.verifications.iter().map(Verification::to_json).collect()
    }

    fn law_cards(&self) -> Vec<Value> {
        let card = |law: &LawReport| {
            let mut card = law.card.clone();
            card["backend"] = json!(law.backend);
            card["adapter"] = json!(law.adapter);
            card["counts"] = law.tally.counts();
            card["rows_missing"] = json!(law.tally.missing_rows);
            card["rows_dropped"] = json!(law.tally.dropped_rows);
            card["without_standard_errors"] = json!({
                "no_point_to_spare": law.tally.without_freedom,
                "curvature_without_inverse": law.tally.without_curvature,
            });
            if law.tally.replicates + law.tally.not_resampled > 0 {
                card["bootstrap"] = json!({
                    "replicates": law.tally.replicates,
                    "not_fitted": law.tally.replicates_failed,
                    "at_bound": law.tally.replicates_pinned,
                    "judged": law.tally.replicates_judged,
                    "device_apart_in_standard_deviations": law.tally.replicates_apart,
                    "fits_not_resampled": law.tally.not_resampled,
                    "fits_with_too_few_replicates": law.tally.too_few_replicates,
                });
            }
            if let Some(best) = law.tally.best {
                card["best"] = json!(best);
                card["curves_not_compared"] = json!(law.tally.incomparable);
                card["curves_without_holdout"] = json!(law.tally.not_held_out);
            }
            card["first_bad_curve"] = json!(law.tally.first_bad.as_ref().map(|(key, _)| key));
            card["first_bad_reason"] = json!(law.tally.first_bad.as_ref().map(|(_, reason)| reason));
            card
        };
        self.laws.iter().map(card).collect()
    }
}

/// How the covariance column is laid out.
const COVARIANCE: &str = "lower triangle, row by row, over the parameters of the row's law in the order of \"laws\"; \
                          0 for fixed and pinned parameters";

/// What was asked, in words that a reader of the file can repeat.
pub(super) fn methods(request: &Request) -> Vec<(String, String)> {
    let first = &request.fits[0].plan;
    let lines = |lines: Vec<String>| lines.join("\n");
    let laws = request.fits.iter().map(|fit| {
        let law = fit.law();
        format!("{} = {} ~ {}", law.name, law.response_text, law.formula)
    });
    let inputs = request.source.files().iter().map(|file| file.display().to_string());
    let weighting = match first.weighting {
        Weighting::Even => "even".to_string(),
        Weighting::Weight(column) => format!("weight {}", request.selection.numbers[column]),
        Weighting::Sigma(column) => format!("sigma {}", request.selection.numbers[column]),
    };
    let (loss, criteria) = match first.objective.loss {
        Loss::Squares => ("squares".to_string(), "of normal errors"),
        Loss::Huber { delta } => (format!("huber:{delta}"), "quasi"),
    };
    let ran = request.fits.iter().map(|fit| {
        let what = match (&fit.device.adapter, fit.plan.model.is_closed_form()) {
            (Some(_), true) => "closed form in f32 on the adapter, verdict in f64 on the CPU",
            (Some(_), false) => "search and refinement in f32 on the adapter, verdict in f64 on the CPU",
            (None, _) => "everything in f64 on the CPU",
        };
        format!("{}: {what}", fit.law().name)
    });
    let mut devices: Vec<&str> = Vec::new();
    let mut adapters: Vec<&str> = Vec::new();
    for fit in &request.fits {
        if !devices.contains(&fit.device.name) {
            devices.push(fit.device.name);
        }
        let adapter = fit.device.adapter.as_deref().unwrap_or("none");
        if !adapters.contains(&adapter) {
            adapters.push(adapter);
        }
    }
    let boxes = request.fits.iter().flat_map(|fit| {
        let name = |j: usize| &fit.law().parameters[fit.plan.model.free[j]];
        let line = move |j: usize| format!("{}: {}: {}", fit.law().name, name(j), fit.describe_box(j));
        (0..fit.plan.model.len()).map(line).collect::<Vec<_>>()
    });
    let seed = request.extras.resampling.as_ref().map(|resampling| resampling.bootstrap.seed);
    let fingerprint = || {
        let cards = request.fits.iter().map(|fit| law_card(fit).to_string()).collect::<Vec<_>>().join("\n");
        let laws = Fingerprint::of_bytes(cards.as_bytes());
        let cluster = request.extras.resampling.iter().flat_map(|resampling| &resampling.cluster);
        let columns: Vec<&str> = request.selection.numbers.iter().chain(cluster).map(String::as_str).collect();
        format!("of each curve's rows, columns {}; laws {laws:016x}", columns.join(","))
    };
    let card = [
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("formula", lines(laws.collect())),
        ("objective", objective(first)),
        ("space", space(first).to_string()),
        ("loss", loss),
        ("information_criteria", criteria.to_string()),
        ("weighting", weighting),
        ("standard_errors", standard_errors(first).to_string()),
        ("covariance", if request.extras.covariance { COVARIANCE } else { "not written" }.to_string()),
        ("level", request.extras.level.map_or(String::new(), |level| level.to_string())),
        ("intervals", intervals(&request.extras).to_string()),
        ("bootstrap", request.extras.resampling.as_ref().map_or(String::new(), bootstrap)),
        ("seed", seed.map_or(String::new(), |seed| seed.to_string())),
        ("select", request.extras.select.map_or(String::new(), Criterion::name)),
        ("bad_rows", if first.drop_bad_rows { "left out" } else { "make their curve bad_domain" }.to_string()),
        ("boxes", lines(boxes.collect())),
        ("inputs", lines(inputs.collect())),
        ("by", request.selection.keys.join(",")),
        ("where", request.selection.filter.as_ref().map_or(String::new(), |(text, _)| text.clone())),
        ("fingerprint", if request.extras.fingerprint { fingerprint() } else { "not written".to_string() }),
        ("backend", devices.join(", ")),
        ("adapter", adapters.join(", ")),
        ("ran", lines(ran.collect())),
    ];
    card.map(|(key, value)| (key.to_string(), value)).to_vec()
}

/// What the columns `_lo` and `_hi` hold, in words.
fn intervals(extras: &Extras) -> &'static str {
    match (extras.level, &extras.resampling, extras.intervals) {
        (None, ..) => "",
        (_, Some(_), Intervals::Expanded) => "percentiles of the replicates, expanded by Student's t",
        (_, Some(_), _) => "percentiles of the replicates",
        (_, None, Intervals::Plain | Intervals::Expanded) => "Student's t: value +- t se",
        (_, None, Intervals::Log) => "Student's t on the logarithm: value exp(+- t se/|value|)",
    }
}

/// What the bootstrap did, in words.
fn bootstrap(resampling: &Resampling) -> String {
    let Bootstrap { replicates, scheme, search, .. } = resampling.bootstrap;
    let start = if search { "each searched anew" } else { "each descended from the curve's optimum" };
    let cluster = resampling.cluster.as_ref().map_or(String::new(), |cluster| format!(", whole clusters of {cluster}"));
    format!("{replicates} replicates, {}{cluster}, {start}; percentiles by linear interpolation", scheme.name())
}

/// The estimate behind `<parameter>_se` and the covariance.
fn standard_errors(plan: &Plan) -> &'static str {
    match (plan.robust_errors, plan.weighting) {
        (true, _) => "robust: H^-1 M H^-1 n/(n-p), M = sum of (w psi(r))^2 J J'",
        (false, Weighting::Sigma(_)) => "classical: H^-1",
        (false, _) => "classical: H^-1 s^2, s^2 = 2 objective/(n-p)",
    }
}

fn space(plan: &Plan) -> &'static str {
    match plan.objective.space {
        Space::Log => "log",
        Space::Linear => "linear",
    }
}

fn objective(plan: &Plan) -> String {
    let residual = match plan.objective.space {
        Space::Log => "r = log(left side) - log(right side)",
        Space::Linear => "r = left side - right side",
    };
    match plan.objective.loss {
        Loss::Squares => format!("sum of w r^2/2, {residual}"),
        Loss::Huber { delta } => {
            format!("sum of w h(r), h = r^2/2 where |r| <= {delta}, else {delta} (|r| - {delta}/2), {residual}")
        }
    }
}

/// Positive columns are in the domain of nearly every law; the response has to be positive in log space only.
fn filter(plan: &Plan, numbers: &[String]) -> String {
    let law = &plan.law;
    let inputs = law.inputs();
    let wanted = |name: &&String| plan.objective.space == Space::Log || inputs.contains(&name.as_str());
    let mut conditions: Vec<String> =
        law.columns.iter().filter(wanted).map(|name| format!("{} > 0", in_formulas(name))).collect();
    match plan.weighting {
        Weighting::Even => {}
        Weighting::Weight(column) => conditions.push(format!("{} >= 0", in_formulas(&numbers[column]))),
        Weighting::Sigma(column) => conditions.push(format!("{} > 0", in_formulas(&numbers[column]))),
    }
    conditions.join(" and ")
}

/// A column's name as formulas and filters write it.
fn in_formulas(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && !name.starts_with(|c: char| c.is_ascii_digit()) { name.to_string() } else { format!("`{name}`") }
}

pub(super) fn law_card(fit: &Fit) -> Value {
    let (law, plan) = (fit.law(), &fit.plan);
    let parameters = law.parameters.iter().enumerate().map(|(j, name)| match plan.fixed[j] {
        Some(value) => json!({ "name": name, "fixed": value }),
        None => {
            let free = plan.model.free.iter().position(|&free| free == j).expect("free where not fixed");
            let mut card = json!({ "name": name, "box": fit.describe_box(free) });
            let Control { lower, upper, grid, starts, .. } = &plan.controls[free];
            if plan.controls[free] != Control::default() {
                card["control"] = json!({ "lower": lower, "upper": upper, "grid": grid, "starts": starts });
            }
            card
        }
    });
    let searched = plan.model.projection.nonlinear.iter().map(|&j| &plan.law.parameters[plan.model.free[j]]);
    json!({
        "name": law.name,
        "family": law.family(),
        "formula": law.formula,
        "response": law.response_text,
        "inputs": law.inputs(),
        "columns": law.columns,
        "searched_as": plan.law.formula,
        "parameters": parameters.collect::<Vec<_>>(),
        "searched": searched.collect::<Vec<_>>(),
        "grid_cells": plan.grid_cells(),
        "grid_points": plan.grid_points(),
    })
}
