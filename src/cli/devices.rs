//! `sweepfit devices`: what wgpu finds, and what `--backend auto` would take.

use crate::cli::print;
use clap::Args;
use sweepfit::Result;
use sweepfit::fit::gpu::{Adapter, adapters};

const EXAMPLE: &str = "\
Example:
  sweepfit devices
  sweepfit fit sweep.parquet --law chinchilla --x params,tokens --y loss \\
    --backend gpu --adapter nvidia -o fits.parquet";

/// List the adapters that can fit, and which one --backend auto would take
///
/// A software adapter runs on the CPU and is slower than --backend cpu: it is taken only when --adapter names it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Devices {}

impl Devices {
    /// Prints the list.
    pub fn run(self) -> Result<()> {
        print(&table(&adapters()))
    }
}

/// One line per adapter, best first, and one that says what `auto` would do.
fn table(adapters: &[Adapter]) -> String {
    if adapters.is_empty() {
        return "no adapter was found: --backend auto uses the CPU\n\
                (a GPU needs a Vulkan, Metal, DX12 or GL driver; Mesa's software Vulkan will do to try one)\n"
            .to_string();
    }
    let header = ["name", "backend", "kind", "driver"].map(String::from);
    let mut lines = vec![header];
    lines.extend(adapters.iter().map(|adapter| {
        [adapter.name.clone(), adapter.backend.clone(), adapter.kind.to_string(), adapter.driver.clone()]
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..3).map(width).collect();
    let mut text = String::new();
    for [name, backend, kind, driver] in &lines {
        let line = format!("{name:<0$}  {backend:<1$}  {kind:<2$}  {driver}", widths[0], widths[1], widths[2]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&match adapters.iter().find(|adapter| adapter.hardware) {
        Some(taken) => format!("--backend auto takes {} for dear work, else the CPU\n", taken),
        None => {
            "--backend auto uses the CPU: none of these is a hardware GPU (--adapter NAME takes one all the same)\n"
                .into()
        }
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: &'static str, hardware: bool) -> Adapter {
        Adapter { name: name.into(), backend: "Vulkan".into(), kind, driver: "made up".into(), hardware }
    }

    #[test]
    fn a_hardware_adapter_is_what_auto_takes() {
        let text = table(&[adapter("Card", "discrete GPU", true), adapter("llvmpipe", "software", false)]);
        assert!(text.contains("auto takes Card (Vulkan, discrete GPU)"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("llvmpipe  Vulkan   software")), "{text}");
    }

    #[test]
    fn a_software_adapter_is_listed_but_not_taken() {
        assert!(table(&[adapter("llvmpipe", "software", false)]).contains("auto uses the CPU: none"));
        assert!(table(&[]).contains("no adapter was found"));
    }
}
