// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4c0c0c8c738a1a42
//! For notebooks: timing, and output richer than text.

// %% notebooks/01_foundations.ipynb ti-timing
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// How long something takes: what [`timeit`] measured. Its `Display` is IPython's report.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Mean over the runs, in seconds per loop.
    pub mean: f64,
    /// Standard deviation over the runs, in seconds per loop.
    pub deviation: f64,
    /// Number of runs.
    pub runs: usize,
    /// Loops in each run.
    pub loops: u64,
}

/// Calls `work` in 7 runs of as many loops as take at least a tenth of a second, and reports the time of one call.
pub fn timeit<T>(mut work: impl FnMut() -> T) -> Timing {
    let mut run = |loops: u64| {
        let start = Instant::now();
        (0..loops).for_each(|_| drop(black_box(work())));
        start.elapsed().as_secs_f64()
    };
    let mut steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let loops = steps.find(|&loops| run(loops) >= 0.1).expect("some number of loops is enough");
    let times: Vec<f64> = (0..7).map(|_| run(loops) / loops as f64).collect();
    let mean = times.iter().sum::<f64>() / 7.0;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / 7.0;
    Timing { mean, deviation: variance.sqrt(), runs: 7, loops }
}

// %% notebooks/01_foundations.ipynb ti-display
/// A time in s, ms, µs or ns, with three digits.
pub fn seconds(time: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    let (unit, name) = units.into_iter().find(|&(unit, _)| time >= unit).unwrap_or((1e-9, "ns"));
    let value = time / unit;
    let decimals = [100.0, 10.0].iter().filter(|&&limit| value < limit).count();
    format!("{value:.decimals$} {name}")
}

/// A number with a comma behind each three digits: 12,345.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let rest: Vec<&str> = (0..rest.len() / 3).map(|k| &rest[3 * k..3 * k + 3]).collect();
    [vec![first], rest].concat().join(",")
}

/// IPython's words: `26.1 µs ± 0.4 µs per loop (mean ± std. dev. of 7 runs, 5,000 loops each)`.
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (mean, deviation) = (seconds(self.mean), seconds(self.deviation));
        let (runs, loops) = (self.runs, thousands(self.loops));
        let s = if self.loops == 1 { "" } else { "s" };
        write!(f, "{mean} ± {deviation} per loop (mean ± std. dev. of {runs} runs, {loops} loop{s} each)")
    }
}

// %% notebooks/01_foundations.ipynb ti-rich
/// A table that a notebook shows as one; its `Display` is plain text in columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A table from a header and rows of cells.
///
/// # Panics
/// If a row is not as long as the header.
#[track_caller]
pub fn table<const N: usize>(header: [&str; N], rows: &[Vec<String>]) -> Table {
    for row in rows {
        assert_eq!(row.len(), N, "table: cells in a row under a header of {N}");
    }
    Table { header: header.map(String::from).to_vec(), rows: rows.to_vec() }
}

impl Table {
    /// Shows the table in a notebook; the evcxr kernel calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        let escape = |text: &String| text.replace('&', "&amp;").replace('<', "&lt;");
        let line = |row: &Vec<String>, tag: &str| {
            let cells: String = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            format!("<tr>{cells}</tr>")
        };
        let rows: String = self.rows.iter().map(|row| line(row, "td")).collect();
        let html = format!("<table>{}{rows}</table>", line(&self.header, "th"));
        println!("EVCXR_BEGIN_CONTENT text/html\n{html}\nEVCXR_END_CONTENT");
        println!("EVCXR_BEGIN_CONTENT text/plain\n{self}\nEVCXR_END_CONTENT");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let width = lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
                let gap = if column == 0 { "" } else { "  " };
                write!(f, "{gap}{cell:width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
