//! Values of `fit`'s options: text to typed values, with an example where the text is wrong.

use super::super::{assignment, number};
use sweepfit::fit::Loss;
use sweepfit::fit::pack::{Control, NamedControl};
use sweepfit::statistics::bootstrap::Scheme;
use sweepfit::statistics::selection::Criterion;

/// δ of `--loss huber`: what the Chinchilla papers use.
const USUAL_DELTA: f64 = 1e-3;
/// More cells than a search could ever visit.
const MOST_CELLS: usize = 1 << 12;

type Parsed<T> = std::result::Result<T, String>;

pub fn loss(text: &str) -> Parsed<Loss> {
    match text.split_once(':') {
        None if text == "squares" => Ok(Loss::Squares),
        None if text == "huber" => Ok(Loss::Huber { delta: USUAL_DELTA }),
        Some(("huber", delta)) => match number(delta)? {
            delta if delta > 0.0 => Ok(Loss::Huber { delta }),
            _ => Err("DELTA must be above 0, as in huber:1e-3".into()),
        },
        _ => Err("give squares, huber or huber:DELTA".into()),
    }
}

/// Bytes: `4GiB`, `500MB`, `1.5G`, or a plain number.
pub fn size(text: &str) -> Parsed<u64> {
    const LEAST: f64 = (64 << 20) as f64;
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "kb" => 1e3,
        "m" | "mib" => 1024.0 * 1024.0,
        "mb" => 1e6,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "gb" => 1e9,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "tb" => 1e12,
        _ => return Err(format!("\"{unit}\" is no unit of memory: write it as 4GiB or 500MB")),
    };
    match number(digits.trim_end())? * factor {
        bytes if bytes >= LEAST => Ok(bytes as u64),
        _ => Err("a run takes 64MiB at least".into()),
    }
}

/// More replicates of a curve than these would not fit into memory beside each other.
const MOST_REPLICATES: u32 = 1_000_000;
/// The share of points held out by `--select holdout`: three points of ten, so that ten points still bear a law of five
/// parameters, and that what is held out reaches beyond the noise of a single point.
const USUAL_HOLDOUT: f64 = 0.3;

pub fn bootstrap(text: &str) -> Parsed<(u32, Scheme)> {
    let (replicates, scheme) = text.split_once(':').unwrap_or((text, Scheme::Pairs.name()));
    let known = || Scheme::ALL.map(Scheme::name).join(", ");
    let scheme = Scheme::ALL.into_iter().find(|known| known.name() == scheme);
    let scheme = scheme.ok_or_else(|| format!("give B:SCHEME with one of {}, as in 1000:wild", known()))?;
    match replicates.parse::<u32>() {
        Ok(replicates) if (2..=MOST_REPLICATES).contains(&replicates) => Ok((replicates, scheme)),
        _ => Err(format!("B must be a whole number from 2 to {MOST_REPLICATES}, as in 1000 or 1000:wild")),
    }
}

pub fn select(text: &str) -> Parsed<Criterion> {
    match text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest))) {
        ("aicc", None) => Ok(Criterion::Aicc),
        ("bic", None) => Ok(Criterion::Bic),
        ("holdout", None) => Ok(Criterion::Holdout { fraction: USUAL_HOLDOUT }),
        ("holdout", Some(fraction)) => match number(fraction)? {
            fraction if fraction > 0.0 && fraction < 1.0 => Ok(Criterion::Holdout { fraction }),
            _ => Err("FRACTION must lie between 0 and 1, as in holdout:0.3".into()),
        },
        _ => Err("give aicc, bic, holdout or holdout:FRACTION".into()),
    }
}

fn named(parameter: String, control: Control) -> NamedControl {
    NamedControl { parameter, control }
}

pub fn bound(text: &str) -> Parsed<NamedControl> {
    let (parameter, value) = assignment(text).map_err(|_| "give P=LO:HI, as in alpha=0:2")?;
    let (low, high) = value.split_once(':').ok_or("give P=LO:HI; either end may be empty, as in E=0:")?;
    let end = |end: &str| if end.trim().is_empty() { Ok(None) } else { number(end).map(Some) };
    let (lower, upper) = (end(low)?, end(high)?);
    match (lower, upper) {
        (None, None) => Err("both ends are empty: leave the option out".into()),
        (Some(low), Some(high)) if low > high => {
            Err(format!("LO {low} is above HI {high}: write {parameter}={high}:{low}"))
        }
        _ => Ok(named(parameter, Control { lower, upper, ..Control::default() })),
    }
}

pub fn fixed(text: &str) -> Parsed<NamedControl> {
    let (parameter, value) = assignment(text).map_err(|_| "give P=V, as in E=1.69")?;
    let value = number(value)?;
    Ok(named(parameter, Control { fixed: Some(value), ..Control::default() }))
}

pub fn grid(text: &str) -> Parsed<NamedControl> {
    let usage = "give P=LO:HI:CELLS, as in alpha=0.01:2:24";
    let (parameter, value) = assignment(text).map_err(|_| usage)?;
    let parts: Vec<&str> = value.split(':').collect();
    let [low, high, cells] = parts[..] else { return Err(usage.into()) };
    let (low, high) = (number(low)?, number(high)?);
    let cells = cells.trim().parse().ok().filter(|cells| (1..=MOST_CELLS).contains(cells));
    let cells: usize = cells.ok_or_else(|| format!("CELLS must be a whole number from 1 to {MOST_CELLS}"))?;
    if low > high {
        return Err(format!("LO {low} is above HI {high}: write {parameter}={high}:{low}:{cells}"));
    }
    if low == high && cells > 1 || low < high && cells == 1 {
        return Err(format!("{cells} cells from {low} to {high} cannot hold both ends; for one value use --start"));
    }
    Ok(named(parameter, Control { grid: Some((low, high, cells)), ..Control::default() }))
}

pub fn start(text: &str) -> Parsed<NamedControl> {
    let (parameter, values) = assignment(text).map_err(|_| "give P=V[,V…], as in alpha=0.3,0.5")?;
    let starts = values.split(',').map(number).collect::<Parsed<Vec<f64>>>()?;
    Ok(named(parameter, Control { starts, ..Control::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_read() {
        let control = |parsed: Parsed<NamedControl>| parsed.expect("a control").control;
        assert_eq!(control(bound("a=1:2")), Control { lower: Some(1.0), upper: Some(2.0), ..Control::default() });
        assert_eq!(control(bound("a=:-2e3")), Control { upper: Some(-2e3), ..Control::default() });
        assert_eq!(control(bound(" a = 0 : ")), Control { lower: Some(0.0), ..Control::default() });
        assert_eq!(control(fixed("E=1.69")).fixed, Some(1.69));
        assert_eq!(control(grid("alpha=0.01:2:24")).grid, Some((0.01, 2.0, 24)));
        assert_eq!(control(start("alpha=0.3,-0.5")).starts, [0.3, -0.5]);
        assert_eq!(loss("huber"), Ok(Loss::Huber { delta: 1e-3 }));
        assert_eq!(loss("huber:0.5"), Ok(Loss::Huber { delta: 0.5 }));
    }

    #[test]
    fn sizes_of_memory_are_read() {
        for (text, bytes) in [("4GiB", 4 << 30), ("500MB", 500_000_000), ("1.5g", 3 << 29), ("67108864", 64 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, expected) in [("4 parsecs", "no unit of memory"), ("1MiB", "64MiB at least"), ("x", "no unit")] {
            assert!(size(text).expect_err(text).contains(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let message = |parsed: Parsed<NamedControl>| parsed.expect_err("a mistake");
        assert_eq!(message(bound("a=2:1")), "LO 2 is above HI 1: write a=1:2");
        assert!(message(bound("a=:")).contains("leave the option out"));
        assert!(message(bound("a=3")).contains("either end may be empty"));
        assert!(message(bound("a")).contains("alpha=0:2"));
        assert!(message(bound("a=x:1")).contains("\"x\" is not a number"));
        assert!(message(fixed("a=inf")).contains("not a number"));
        assert!(message(grid("a=1:2")).contains("P=LO:HI:CELLS"));
        assert!(message(grid("a=1:2:0")).contains("whole number"));
        assert!(message(grid("a=2:1:8")).contains("write a=1:2:8"));
        assert!(message(grid("a=1:2:1")).contains("--start"));
        assert!(message(start("a=1,,2")).contains("not a number"));
        assert!(loss("huber:0").expect_err("a mistake").contains("above 0"));
        assert!(loss("hubble").expect_err("a mistake").contains("squares, huber"));
    }
}
