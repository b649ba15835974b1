//! What one core does: search and judge of packed curves, by law and space, in curves per second.
//!
//! Emulates the middle of a bulk fit, without reading and writing: 32 points over 4 decades with 0.5% log noise, as in the
//! sweeps that `sweepfit generate` makes. The judge's part holds refinement, the f64 verdict and standard errors.

use divan::Bencher;
use divan::counter::ItemsCount;
use sweepfit::curves::CurveBatch;
use sweepfit::fit::cpu::Cpu;
use sweepfit::fit::judge::judge;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Backend, Loss, Objective, Space, Status};
use sweepfit::law::{Law, Mapping};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CURVES: usize = 4096;
const POINTS: usize = 32;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("no pool was built before");
    divan::main();
}

/// A number in [0, 1) from a counter (splitmix64).
fn uniform(counter: usize) -> f64 {
    let mut z = (counter as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn curves() -> CurveBatch {
    let mut batch = CurveBatch { offsets: vec![0], columns: vec![Vec::new(), Vec::new()] };
    for curve in 0..CURVES {
        let (floor, size) = (1.5 + uniform(7 * curve), 50.0 + 100.0 * uniform(7 * curve + 1));
        let alpha = 0.1 + 0.5 * uniform(7 * curve + 2);
        for point in 0..POINTS {
            let x = 100.0 * 10f64.powf(4.0 * point as f64 / (POINTS - 1) as f64);
            let draw = |k: usize| uniform(1_000_000 + (curve * POINTS + point) * 12 + k);
            // The sum of twelve uniform draws has unit variance.
            let normal = (0..12).map(draw).sum::<f64>() - 6.0;
            batch.columns[0].push(x);
            batch.columns[1].push((floor + size * x.powf(-alpha)) * (0.005 * normal).exp());
        }
        batch.offsets.push(batch.columns[0].len());
    }
    batch
}

fn plan(law: &str, space: Space) -> Plan {
    let columns = ["x", "y"].map(String::from);
    let law = Law::bind(law, &columns, Mapping { x: &columns[..1], y: Some("y") }).expect("a catalogue law binds");
    let objective = Objective { space, loss: Loss::Squares };
    Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect("no control contradicts another")
}

const CASES: [(&str, Space); 4] = [
    ("power", Space::Log),
    ("saturating_power", Space::Log),
    ("saturating_power", Space::Linear),
    ("saturating_exponential", Space::Linear),
];

#[divan::bench(args = 0..CASES.len())]
fn pack(bencher: Bencher, case: usize) {
    let (plan, batch) = (plan(CASES[case].0, CASES[case].1), curves());
    bencher.counter(ItemsCount::new(CURVES)).bench_local(|| plan.pack(&batch));
}

#[divan::bench(args = 0..CASES.len())]
fn search(bencher: Bencher, case: usize) {
    let (plan, batch) = (plan(CASES[case].0, CASES[case].1), curves());
    let packed = plan.pack(&batch);
    bencher.counter(ItemsCount::new(CURVES)).bench_local(|| Cpu.propose(&packed.problem));
}

#[divan::bench(args = 0..CASES.len())]
fn search_and_judge(bencher: Bencher, case: usize) {
    let (law, space) = CASES[case];
    let (plan, batch) = (plan(law, space), curves());
    let packed = plan.pack(&batch);
    let fit = || judge(&packed.problem, &Cpu.propose(&packed.problem).expect("the CPU does not fail"), false);
    let converged = fit().status.iter().filter(|&&status| status == Status::Converged).count();
    println!("{law} in {space:?} space: {converged} of {CURVES} converged");
    bencher.counter(ItemsCount::new(CURVES)).bench_local(fit);
}
