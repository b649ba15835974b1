//! The scaling drawn: fits per second against the number of curves, both logarithmic, as text and as SVG.

use super::measure::Scale;
use super::report::short;
use std::fmt::Write as _;
use std::path::Path;
use sweepfit::{Error, Result};

/// One device with one number of threads.
struct Line {
    name: String,
    /// Number of curves, fits per second, and curves per second from file to file.
    points: Vec<(f64, f64, f64)>,
}

fn lines(scales: &[Scale]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for scale in scales {
        let name = format!("{}, {} thread{}", scale.label, scale.threads, if scale.threads == 1 { "" } else { "s" });
        let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            lines.push(Line { name, points: Vec::new() });
            lines.len() - 1
        });
        if let Some((whole, fit)) = scale.seconds.filter(|(whole, fit)| *whole > 0.0 && *fit > 0.0) {
            let curves = scale.curves as f64;
            lines[at].points.push((curves, curves / fit, curves / whole));
        }
    }
    lines
}

/// Decades that hold all of `values`.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| *value > 0.0) {
        low = low.min(value.log10());
        high = high.max(value.log10());
    }
    if low > high {
        return (0, 1);
    }
    let low = low.floor() as i32;
    (low, (high.ceil() as i32).max(low + 1))
}

/// Where `value` lies between two decades, in 0..=1.
fn place(value: f64, (low, high): (i32, i32)) -> f64 {
    (value.log10() - f64::from(low)) / f64::from(high - low)
}

const WIDTH: usize = 64;
const ROWS_PER_DECADE: usize = 5;

/// Fits per second, a letter per device; a later device hides an earlier one at the same place.
pub fn text(scales: &[Scale]) -> String {
    let lines = lines(scales);
    let all = || lines.iter().flat_map(|line| &line.points);
    let (x, y) = (decades(all().map(|point| point.0)), decades(all().map(|point| point.1)));
    let height = ROWS_PER_DECADE * (y.1 - y.0) as usize;
    let mut field = vec![vec![' '; WIDTH + 1]; height + 1];
    for (line, letter) in lines.iter().zip('a'..='z') {
        for &(curves, fits, _) in &line.points {
            let column = (place(curves, x) * WIDTH as f64).round() as usize;
            let row = height - (place(fits, y) * height as f64).round() as usize;
            field[row][column] = letter;
        }
    }
    let mut text = String::from("fits/s against curves\n");
    for (row, cells) in field.iter().enumerate() {
        let label = if row.is_multiple_of(ROWS_PER_DECADE) {
            short(Some(10f64.powi(y.1 - (row / ROWS_PER_DECADE) as i32)))
        } else {
            String::new()
        };
        let cells: String = cells.iter().collect();
        text += format!("{label:>7} |{cells}").trim_end();
        text.push('\n');
    }
    text += &format!("        +{}\n", "-".repeat(WIDTH));
    let ends = [x.0, x.1].map(|decade| short(Some(10f64.powi(decade))));
    text += &format!("         {}{:>2$}\n", ends[0], ends[1], WIDTH - ends[0].len());
    for (line, letter) in lines.iter().zip('a'..='z') {
        text += &format!("  {letter}  {}\n", line.name);
    }
    text
}

/// Colours that differ for colour-blind readers, too (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];

/// Solid: fits per second, pack to judge. Dashed: curves per second from file to file.
pub fn svg(title: &str, scales: &[Scale]) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 50.0;
    const ACROSS: f64 = 560.0;
    const DOWN: f64 = 360.0;
    let lines = lines(scales);
    let all = || lines.iter().flat_map(|line| &line.points);
    let (x, y) = (decades(all().map(|point| point.0)), decades(all().flat_map(|point| [point.1, point.2])));
    let at = |curves: f64, rate: f64| (LEFT + ACROSS * place(curves, x), TOP + DOWN * (1.0 - place(rate, y)));
    let height = TOP + DOWN + 70.0 + 18.0 * lines.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 700 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"700\" height=\"{height}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"14\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"40\">per second; solid: fits, pack to judge; dashed: curves, from file to file</text>\n",
        escaped(title)
    );
    let mut add = |element: String| writeln!(svg, "{element}").expect("writing to a string cannot fail");
    let ends = (LEFT + ACROSS, TOP + DOWN);
    for decade in y.0..=y.1 {
        let (_, row) = at(10f64.powi(x.0), 10f64.powi(decade));
        add(format!("<path d=\"M{LEFT} {row:.1}H{}\" stroke=\"#ddd\"/>", ends.0));
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, row + 4.0, power(decade)));
    }
    for decade in x.0..=x.1 {
        let (column, _) = at(10f64.powi(decade), 10f64.powi(y.0));
        add(format!("<path d=\"M{column:.1} {TOP}V{}\" stroke=\"#ddd\"/>", ends.1));
        add(format!("<text x=\"{column:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", ends.1 + 18.0, power(decade)));
    }
    add(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">curves</text>", LEFT + ACROSS / 2.0, ends.1 + 38.0));
    for (line, (number, colour)) in lines.iter().zip((0..).zip(COLOURS.iter().cycle())) {
        for (dashes, rate) in [("", 1), (" stroke-dasharray=\"6 4\"", 2)] {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|point| at(point.0, if rate == 1 { point.1 } else { point.2 }))
                .map(|(column, row)| format!("{column:.1},{row:.1}"))
                .collect();
            add(format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
                points.join(" ")
            ));
        }
        let row = ends.1 + 62.0 + 18.0 * f64::from(number);
        add(format!("<path d=\"M{LEFT} {}h24\" stroke=\"{colour}\" stroke-width=\"2\"/>", row - 4.0));
        add(format!("<text x=\"{}\" y=\"{row}\">{}</text>", LEFT + 32.0, escaped(&line.name)));
    }
    svg + "</svg>\n"
}

fn power(decade: i32) -> String {
    short(Some(10f64.powi(decade)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes the drawing.
pub fn write(path: &Path, svg: &str) -> Result<()> {
    std::fs::write(path, svg).map_err(|error| Error::Output {
        file: path.to_path_buf(),
        message: format!("cannot be written: {error}; choose another --plot"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(curves: u64, label: &str, seconds: Option<(f64, f64)>) -> Scale {
        Scale { curves, label: label.into(), threads: 2, seconds, converged: seconds.map(|_| 1.0) }
    }

    #[test]
    fn every_measured_point_is_drawn_and_a_run_left_out_is_not() {
        let scales = [
            scale(100, "cpu", Some((0.01, 0.001))),
            scale(1000, "cpu", Some((0.1, 0.01))),
            scale(100, "A & B", Some((0.1, 0.1))),
            scale(1000, "A & B", None),
        ];
        let text = text(&scales);
        let drawn = |letter: char| {
            text.lines().filter(|line| line.contains('|')).flat_map(str::chars).filter(|&c| c == letter).count()
        };
        assert_eq!((drawn('a'), drawn('b')), (2, 1), "{text}");
        assert!(text.contains("  a  cpu, 2 threads\n  b  A & B, 2 threads"), "{text}");
        let svg = svg("title <1>", &scales);
        assert!(svg.contains("title &lt;1&gt;") && svg.contains("A &amp; B"), "{svg}");
        // 100 fits in 1 ms and 1,000 in 10 ms: the ordinates of the solid line are equal.
        let solid = svg.lines().find(|line| line.starts_with("<polyline")).expect("a line");
        let ordinates: Vec<&str> =
            solid.split('"').nth(1).expect("points").split(' ').filter_map(|p| p.split(',').nth(1)).collect();
        assert!(ordinates.len() == 2 && ordinates[0] == ordinates[1], "{solid}");
    }
}
