// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 263378a385ac3e59
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

// %% notebooks/01_foundations.ipynb ti-measured
use minai::io::interrupt;

/// Measures what runs so many loops, and says how many seconds they took. Whoever interrupts it gets what there is.
fn measured(run: &mut dyn FnMut(u64) -> f64) -> Timing {
    let (mut loops, mut first) = (0, 0.0);
    for step in (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power))) {
        (loops, first) = (step, run(step));
        if first >= 0.1 || interrupt::requested() {
            break;
        }
    }
    let mut times: Vec<f64> = (0..7).map_while(|_| (!interrupt::requested()).then(|| run(loops))).collect();
    if times.is_empty() {
        times.push(first);
    }
    times.iter_mut().for_each(|time| *time /= loops as f64);
    let runs = times.len() as f64;
    let mean = times.iter().sum::<f64>() / runs;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / runs;
    Timing { mean, deviation: variance.sqrt(), runs: times.len(), loops }
}

// %% notebooks/01_foundations.ipynb ti-timeit
/// Calls `work` in 7 runs of as many loops as take at least a tenth of a second, and reports the time of one call.
/// Interrupted, it reports the runs that were finished.
pub fn timeit<T>(mut work: impl FnMut() -> T) -> Timing {
    measured(&mut |loops| {
        let start = Instant::now();
        (0..loops).for_each(|_| drop(black_box(work())));
        start.elapsed().as_secs_f64()
    })
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

/// A number with a comma after each three digits: 12,345.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let rest: Vec<&str> = (0..rest.len() / 3).map(|k| &rest[3 * k..3 * k + 3]).collect();
    [vec![first], rest].concat().join(",")
}

// %% notebooks/01_foundations.ipynb ti-words
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

// %% notebooks/01_foundations.ipynb ti-table
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

// %% notebooks/01_foundations.ipynb ti-table-html
use minai::io::notebook::{self, Bundle, Handle, Rich};

fn html(table: &Table) -> String {
    let escape = |text: &String| text.replace('&', "&amp;").replace('<', "&lt;");
    let line = |row: &Vec<String>, tag: &str| {
        let cells: String = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = table.rows.iter().map(|row| line(row, "td")).collect();
    format!("<table>{}{rows}</table>", line(&table.header, "th"))
}

// %% notebooks/01_foundations.ipynb ti-table-rich
/// As a table and as text.
impl Rich for Table {
    fn bundle(&self) -> Bundle {
        Bundle { text: self.to_string(), rich: vec![("text/html", html(self))] }
    }
}

impl Table {
    /// Shows the table in a notebook; the evcxr kernel calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        self.bundle().print_block();
    }
}

// %% notebooks/01_foundations.ipynb ti-live
/// Shows something at once, while the cell runs; the handle changes it in place. In other kernels and in a terminal
/// this and each change print a line.
pub fn display(x: &(impl Rich + ?Sized)) -> Handle {
    notebook::display(x)
}

/// Anything as text, for [`display`].
pub fn text(x: &(impl fmt::Debug + ?Sized)) -> Bundle {
    notebook::text(x)
}
