//! What the tallies say of curves that are carried over: the summary speaks of the whole table, whenever its rows were made.
//!
//! In: the rows of a batch, and the curves in it that are carried over. Out: counts of statuses, of null standard errors and
//! intervals, of best laws as the rows tell them; rows left out and outside the domain by looking at the points once more,
//! where fewer were used than there are. Replicates are counted where they are made, and so not for such curves.

use super::Request;
use super::columns::Columns;
use super::work::Work;
use crate::fit::Status;
use crate::statistics::selection::Criterion;
use crate::table::Batch;

/// Counts the curves `carried` of a batch, whose rows stand in `work`.
pub(super) fn count(request: &Request, columns: &Columns, batch: &Batch, carried: &[u32], work: &mut Work) {
    let laws = request.fits.len();
    let Work { fits, tallies, .. } = work;
    let (status, points) = (fits.texts("status"), fits.numbers("points"));
    let has_fit = |row: usize| Status::of_name(status(row)).is_some_and(Status::has_parameters);
    for (law, tally) in tallies.iter_mut().enumerate() {
        let row_of = |curve: u32| curve as usize * laws + law;
        let errors: Vec<_> = columns.error_columns(law).iter().map(|column| fits.numbers(column)).collect();
        for &curve in carried {
            let row = row_of(curve);
            let Some(status) = Status::of_name(status(row)) else { continue };
            tally.enter(status, || batch.keys.describe(curve as usize));
            let unknown = errors.iter().filter(|error| error(row).is_nan()).count();
            if status.has_parameters() && unknown > 0 {
                let pinned = fits.length("at_bound", row);
                if unknown > pinned {
                    tally.without_error(points(row) <= (errors.len() - pinned) as f64);
                }
            }
        }
        let used_fewer = |curve: &u32| {
            let rows = batch.curves.offsets[*curve as usize + 1] - batch.curves.offsets[*curve as usize];
            points(row_of(*curve)) != rows as f64
        };
        let left_out: Vec<u32> = carried.iter().copied().filter(used_fewer).collect();
        if !left_out.is_empty() {
            let curves = batch.curves.take(&left_out);
            let packed = request.fits[law].plan.pack(&curves);
            tally.left_out(&packed, |curve| batch.keys.describe(left_out[curve] as usize));
        }
        if let Some(resampling) = &request.extras.resampling {
            let (fitted, replicates) = (fits.numbers("boot_fitted"), f64::from(resampling.bootstrap.replicates));
            for row in carried.iter().map(|&curve| row_of(curve)).filter(|&row| has_fit(row)) {
                tally.not_resampled += u64::from(fitted(row).is_nan());
                tally.too_few_replicates += u64::from(2.0 * fitted(row) < replicates);
            }
        }
        if let Some(Criterion::Holdout { .. }) = request.extras.select {
            let error = fits.numbers("holdout_rmse");
            let unknown = |curve: &&u32| has_fit(row_of(**curve)) && error(row_of(**curve)).is_nan();
            tally.not_held_out += carried.iter().filter(unknown).count() as u64;
        }
        if request.extras.select.is_some() {
            let best = fits.flags("best");
            let own = carried.iter().filter(|curve| best(row_of(**curve))).count() as u64;
            tally.best = Some(tally.best.unwrap_or(0) + own);
            let incomparable = carried.iter().filter(|&&curve| {
                let mut rows = (0..laws).map(|law| curve as usize * laws + law).filter(|&row| has_fit(row));
                let first = rows.next().map(&points);
                !(0..laws).any(|law| best(curve as usize * laws + law)) && rows.any(|row| Some(points(row)) != first)
            });
            tally.incomparable += incomparable.count() as u64;
        }
    }
}
