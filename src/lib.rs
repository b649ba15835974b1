//! sweepfit fits scaling laws and learning curves in bulk: every law to every curve of a table, globally, without starting
//! values, on the CPU and on any GPU.
//!
//! # The pipeline on one page
//!
//! ```text
//! read      table::read       files → batches of whole curves, in the order in which their keys first appear
//!   ↓
//! pack      fit::pack         raw columns → the inputs, response and weights of one law, with every curve's box and grid
//!   ↓
//! search    fit::Backend      proposals: the distinct basins of every curve (CPU in f64, GPU in f32)
//!   ↓
//! judge     fit::judge        f64, for every backend: Newton steps to the end, the best basin, statuses, statistics
//!   ↓
//! write     table::Writer     one row per curve and law, in input order, with a methods card in the metadata
//! ```
//!
//! [`pipeline`] is the only place that knows all stages. A [`law::Law`] is a formula bound to a table's columns; from its
//! expression graph ([`formula::graph`]) the derivatives, the linear parameters, the default boxes, the tapes of the CPU
//! ([`evaluate`]) and the shaders of the GPU ([`fit::gpu`]) are derived, so that a law of the catalogue ([`law::catalogue`])
//! and a formula typed by a user are the same thing.
//!
//! # An example
//!
//! ```
//! use sweepfit::fit::pack::{Plan, Weighting};
//! use sweepfit::fit::{Loss, Objective, Space, Status};
//! use sweepfit::law::{Law, Mapping};
//! use sweepfit::pipeline::{Device, Fit, Request, run};
//! use sweepfit::table::{Selection, Source};
//!
//! // Two runs, measured at powers of two: loss = 2 + 30 tokens^-0.5 and loss = 1.5 + 20 tokens^-0.25.
//! let folder = tempfile::tempdir().expect("a folder");
//! let (sweep, fits) = (folder.path().join("sweep.csv"), folder.path().join("fits.csv"));
//! let mut text = String::from("run,tokens,loss\n");
//! for (run, floor, amplitude, exponent) in [("a", 2.0, 30.0, 0.5), ("b", 1.5, 20.0, 0.25f64)] {
//!     for tokens in (4..16).map(|power| f64::from(1 << power)) {
//!         text += &format!("{run},{tokens},{}\n", floor + amplitude * tokens.powf(-exponent));
//!     }
//! }
//! std::fs::write(&sweep, text).expect("a file");
//!
//! let source = Source::open(&[sweep.to_str().expect("a path").to_string()])?;
//! let columns: Vec<String> = source.columns().iter().map(|column| column.name.clone()).collect();
//! // A name that is a column is an input, every other is a parameter.
//! let law = Law::bind("loss ~ E + A*tokens^-alpha", &columns, Mapping::default())?;
//! assert_eq!(law.parameters, ["E", "A", "alpha"]);
//! let numbers = law.columns.clone();
//! let objective = Objective { space: Space::Log, loss: Loss::Squares };
//! let plan = Plan::new(law, objective, &[], Weighting::Even, false, &numbers)?;
//!
//! let request = Request {
//!     source,
//!     selection: Selection { keys: vec!["run".into()], numbers, filter: None },
//!     fits: vec![Fit { plan: plan.into(), spelling: None, device: Device::cpu() }],
//!     extras: Default::default(),
//!     out: fits.to_str().expect("a path").to_string(),
//!     parts: None,
//!     verify: 0,
//!     memory: None,
//!     rerun: Default::default(),
//!     threads: 2,
//!     interrupted: Default::default(),
//! };
//! let report = run(request, &mut |_| {})?;
//! assert_eq!((report.curves, report.count(Status::Converged)), (2, 2));
//!
//! let table = std::fs::read_to_string(&fits).expect("the fits");
//! assert!(table.starts_with("run,law,E,A,alpha,E_se,A_se,alpha_se,status,points,objective,"));
//! let alpha: f64 = table.lines().nth(1).and_then(|line| line.split(',').nth(4)).expect("alpha").parse().expect("a number");
//! assert!((alpha - 0.5).abs() < 1e-6);
//! # Ok::<(), sweepfit::Error>(())
//! ```

pub mod bytes;
pub mod curves;
pub mod error;
pub mod evaluate;
pub mod fingerprint;
pub mod fit;
pub mod formula;
pub mod generate;
pub mod job;
pub mod law;
pub mod pipeline;
pub mod random;
pub mod selftest;
pub mod statistics;
pub mod table;
pub mod verify;
pub mod workload;

pub use error::{Error, Result};
