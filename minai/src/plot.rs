// Owned by notebooks/90_plot.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 707be8396dd5773b
//! Charts and pictures that show themselves in a notebook and save themselves as PNG or SVG elsewhere.
//!
//! ```
//! use minai::plot::{axes, curve, line, plot};
//!
//! let losses = [2.3, 1.1, 0.6, 0.4];
//! let figure = plot("Loss falls", axes("step", "loss"), [line("train", 0.., &losses), curve("1/(x + 0.4)", 0.0..=3.0, |x| 1.0 / (x + 0.4))]);
//! assert!(figure.svg().contains("Loss falls"));
//! ```
//!
//! Numbers come as anything that iterates over numbers: slices, arrays, `Vec`s, ranges, ndarray's arrays. Values that cannot be drawn (NaN, infinities, on a
//! logarithmic axis also zero and below) leave a gap. Every picture carries a description for those who cannot see it.

// %% notebooks/90_plot.ipynb page
/// A colour: red, green and blue.
pub type Rgb = [u8; 3];

/// Which part of a text stands at the given place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Align {
    /// The text begins there.
    Left,
    /// The middle of the text is there.
    Middle,
    /// The text ends there.
    Right,
}

#[derive(Clone, Debug)]
enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        width: f64,
        color: Rgb,
    },
    Area {
        points: Vec<(f64, f64)>,
        color: Rgb,
    },
    Dot {
        at: (f64, f64),
        radius: f64,
        color: Rgb,
    },
    Text {
        at: (f64, f64),
        align: Align,
        size: f64,
        color: Rgb,
        text: String,
    },
    Pixels {
        at: (usize, usize),
        zoom: usize,
        shape: (usize, usize),
        rgb: Vec<u8>,
    },
}

/// A sheet of paper with marks on it. Lengths are in CSS pixels from the top left corner; y grows downwards.
#[derive(Clone, Debug)]
pub struct Page {
    width: usize,
    height: usize,
    marks: Vec<Mark>,
}

impl Page {
    /// An empty white page.
    pub fn new(width: usize, height: usize) -> Page {
        Page {
            width,
            height,
            marks: vec![],
        }
    }

    /// A line through the points, with round joints and ends.
    pub fn line(&mut self, points: &[(f64, f64)], width: f64, color: Rgb) {
        self.marks.push(Mark::Line {
            points: points.to_vec(),
            width,
            color,
        });
    }

    /// A filled shape with corners at the points.
    pub fn area(&mut self, points: &[(f64, f64)], color: Rgb) {
        self.marks.push(Mark::Area {
            points: points.to_vec(),
            color,
        });
    }

    /// A filled disc.
    pub fn dot(&mut self, at: (f64, f64), radius: f64, color: Rgb) {
        self.marks.push(Mark::Dot { at, radius, color });
    }

    /// One line of text; `at` lies on its baseline, `size` is the height of its font.
    pub fn text(&mut self, at: (f64, f64), align: Align, size: f64, color: Rgb, text: &str) {
        let text = text.replace(char::is_control, " ");
        self.marks.push(Mark::Text {
            at,
            align,
            size,
            color,
            text,
        });
    }

    /// An image of h by w pixels (`rgb` holds h · w · 3 bytes), each drawn as a square with a side of `zoom`.
    #[track_caller]
    pub fn pixels(
        &mut self,
        at: (usize, usize),
        zoom: usize,
        (h, w): (usize, usize),
        rgb: Vec<u8>,
    ) {
        assert_eq!(
            rgb.len(),
            h * w * 3,
            "Page::pixels: {h} by {w} pixels need 3 bytes each"
        );
        self.marks.push(Mark::Pixels {
            at,
            zoom,
            shape: (h, w),
            rgb,
        });
    }
}

// %% notebooks/90_plot.ipynb font
use std::sync::Once;

use minai::kernels::font::DEJAVU_SANS;
use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// The families that an SVG asks for; under the same name plotters finds the embedded font.
const FAMILY: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

fn font(size: f64) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let registered = register_font(FAMILY, FontStyle::Normal, DEJAVU_SANS);
        assert!(registered.is_ok(), "the embedded font is not a font");
    });
    FontDesc::new(FontFamily::Name(FAMILY), size, FontStyle::Normal)
}

/// The height of plotters' font size in DejaVu Sans: from the top of the highest to the foot of the lowest letter, in ems.
const EM: f64 = 1.164;

/// How long a text is, in CSS pixels, when its font is `size` high.
pub fn text_width(text: &str, size: f64) -> f64 {
    let (width, _) = font(1000.0 * EM)
        .box_size(text)
        .expect("the font is registered");
    f64::from(width) * size / 1000.0
}

// %% notebooks/90_plot.ipynb paint
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::prelude::{BitMapBackend, Circle, DrawingBackend, PathElement, Polygon, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor, TextStyle};

/// How a backend wants a page: units per CSS pixel (its coordinates are whole numbers), font size per em,
/// ems from the top of a text to its baseline, and whether it joins the segments of a line by itself.
struct Pen {
    unit: f64,
    em: f64,
    baseline: f64,
    joins: bool,
}

fn paint<B: DrawingBackend>(
    page: &Page,
    area: &DrawingArea<B, Shift>,
    pen: &Pen,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let place =
        |&(x, y): &(f64, f64)| ((x * pen.unit).round() as i32, (y * pen.unit).round() as i32);
    for mark in &page.marks {
        match mark {
            Mark::Line {
                points,
                width,
                color: [r, g, b],
            } => {
                let style = RGBColor(*r, *g, *b).stroke_width((width * pen.unit).round() as u32);
                let points: Vec<_> = points.iter().map(place).collect();
                if pen.joins {
                    area.draw(&PathElement::new(points, style))?;
                    continue;
                }
                // Filled as one shape, a line that crosses itself would have holes: so segment by segment, with round joints.
                for ends in points.windows(2) {
                    area.draw(&PathElement::new(ends, style))?;
                }
                for joint in points {
                    area.draw(&Circle::new(joint, style.stroke_width / 2, style.filled()))?;
                }
            }
            Mark::Area {
                points,
                color: [r, g, b],
            } => {
                area.draw(&Polygon::new(
                    points.iter().map(place).collect::<Vec<_>>(),
                    RGBColor(*r, *g, *b),
                ))?;
            }
            Mark::Dot {
                at,
                radius,
                color: [r, g, b],
            } => {
                area.draw(&Circle::new(
                    place(at),
                    (radius * pen.unit).round() as i32,
                    RGBColor(*r, *g, *b).filled(),
                ))?;
            }
            Mark::Text {
                at: (x, y),
                align,
                size,
                color: [r, g, b],
                text,
            } => {
                let side = match align {
                    Align::Left => HPos::Left,
                    Align::Middle => HPos::Center,
                    Align::Right => HPos::Right,
                };
                let color = RGBColor(*r, *g, *b);
                let style = TextStyle::from(font(size * pen.em * pen.unit))
                    .color(&color)
                    .pos(Pos::new(side, VPos::Top));
                area.draw_text(text, &style, place(&(*x, y - pen.baseline * size)))?;
            }
            Mark::Pixels { .. } => {} // no backend: `svg` embeds them and `png` copies them
        }
    }
    area.present()
}

// %% notebooks/90_plot.ipynb png
/// RGB bytes, row by row, as a PNG file.
fn encode_png(rgb: &[u8], (h, w): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a Vec takes every byte");
    writer
        .write_image_data(rgb)
        .expect("a Vec takes every byte");
    writer.finish().expect("a Vec takes every byte");
    bytes
}

/// A page as RGB bytes, two pixels per CSS pixel.
fn raster(page: &Page) -> (Vec<u8>, (usize, usize)) {
    const FINE: usize = 4; // twice as fine as the result, whose pixels are averages of 2 by 2: no jagged edges
    let (h, w) = (page.height * FINE, page.width * FINE);
    let mut fine = vec![255; h * w * 3];
    for mark in &page.marks {
        if let Mark::Pixels {
            at: (left, top),
            zoom,
            shape: (rows, columns),
            rgb,
        } = mark
        {
            let side = zoom * FINE;
            for y in (0..rows * side).take_while(|y| top * FINE + y < h) {
                for x in (0..columns * side).take_while(|x| left * FINE + x < w) {
                    let (to, from) = (
                        ((top * FINE + y) * w + left * FINE + x) * 3,
                        (y / side * columns + x / side) * 3,
                    );
                    fine[to..to + 3].copy_from_slice(&rgb[from..from + 3]);
                }
            }
        }
    }
    let area = BitMapBackend::with_buffer(&mut fine, (w as u32, h as u32)).into_drawing_area();
    paint(
        page,
        &area,
        &Pen {
            unit: FINE as f64,
            em: EM,
            baseline: EM / 2.0,
            joins: false,
        },
    )
    .expect("memory takes every pixel");
    drop(area);
    let (h, w) = (h / 2, w / 2);
    let mut rgb = Vec::with_capacity(h * w * 3);
    for y in 0..h {
        for x in 0..w {
            for channel in 0..3 {
                let at = |dy: usize, dx: usize| {
                    u16::from(fine[((2 * y + dy) * 2 * w + 2 * x + dx) * 3 + channel])
                };
                rgb.push(((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) / 4) as u8);
            }
        }
    }
    (rgb, (h, w))
}

// %% notebooks/90_plot.ipynb svg
use base64::Engine;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Text as it may stand in XML and HTML.
fn escape(text: &str) -> String {
    let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn svg_text(page: &Page, title: &str, description: &str) -> String {
    const UNIT: f64 = 10.0; // tenths of a CSS pixel: plotters' coordinates are whole numbers
    let (w, h) = (
        page.width as u32 * UNIT as u32,
        page.height as u32 * UNIT as u32,
    );
    let mut marks = String::new();
    let area = SVGBackend::with_string(&mut marks, (w, h)).into_drawing_area();
    paint(
        page,
        &area,
        &Pen {
            unit: UNIT,
            em: 1.24,
            baseline: 0.76,
            joins: true,
        },
    )
    .expect("a String takes every mark");
    drop(area);
    let (_, marks) = marks
        .split_once('\n')
        .expect("the backend opens the picture on a line of its own");
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" viewBox="0 0 {w} {h}" stroke-linejoin="round" stroke-linecap="round" role="img" aria-label="{}">
<title>{}</title>
<desc>{}</desc>
<rect width="{w}" height="{h}" fill="#FFFFFF"/>
"##,
        page.width,
        page.height,
        escape(&format!("{title}. {description}")),
        escape(title),
        escape(description),
    );
    for mark in &page.marks {
        if let Mark::Pixels {
            at: (x, y),
            zoom,
            shape: (rows, columns),
            rgb,
        } = mark
        {
            let [x, y, w, h] =
                [*x, *y, columns * zoom, rows * zoom].map(|length| length as f64 * UNIT);
            let png = base64(encode_png(rgb, (*rows, *columns)));
            svg += &format!(
                "<image x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{png}\"/>\n"
            );
        }
    }
    svg + marks
}

// %% notebooks/90_plot.ipynb figure
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// A finished picture: it shows itself at the end of a notebook's cell, and [`Figure::save`] writes it to a file.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What is drawn.
    pub page: Page,
    /// What the picture is about, in a few words.
    pub title: String,
    /// What there is to see, for those who cannot see it.
    pub description: String,
}

impl Figure {
    /// The picture as SVG: lines stay lines and text stays text.
    pub fn svg(&self) -> String {
        svg_text(&self.page, &self.title, &self.description)
    }

    /// The picture as PNG, two pixels per CSS pixel.
    pub fn png(&self) -> Vec<u8> {
        let (rgb, shape) = raster(&self.page);
        encode_png(&rgb, shape)
    }

    /// Writes `name.png` or `name.svg`: the ending decides. A file of that name is replaced, in one step.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        let path = path.as_ref();
        let bytes = match path.extension().and_then(|ending| ending.to_str()) {
            Some("png") => self.png(),
            Some("svg") => self.svg().into_bytes(),
            _ => return Err(SaveError::Ending(path.into())),
        };
        write_whole(path, &bytes).map_err(|source| SaveError::Write(path.into(), source))
    }

    /// Shows the picture in the notebook; evcxr calls it when a cell ends with a `Figure`.
    pub fn evcxr_display(&self) {
        let svg = self.svg();
        let (kind, data) = if svg.len() <= 200_000 {
            ("svg+xml", base64(svg))
        } else {
            ("png", base64(self.png()))
        };
        let alt = format!("{}. {}", self.title, self.description);
        println!("EVCXR_BEGIN_CONTENT text/plain\n{alt}\nEVCXR_END_CONTENT");
        println!("EVCXR_BEGIN_CONTENT text/html");
        println!(
            "<img width=\"{}\" alt=\"{}\" src=\"data:image/{kind};base64,{data}\">",
            self.page.width,
            escape(&alt)
        );
        println!("EVCXR_END_CONTENT");
    }
}

/// Writes beside `path` first, so that nobody ever sees half a file.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part); // the first error is the one worth reporting
    }
    written
}

/// Why a picture could not be saved.
#[derive(Debug)]
pub enum SaveError {
    /// The file's name ends neither in `.png` nor in `.svg`.
    Ending(PathBuf),
    /// The file could not be written.
    Write(PathBuf, io::Error),
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SaveError::Ending(path) => write!(
                f,
                "{}: a picture's file name ends in .png or .svg",
                path.display()
            ),
            SaveError::Write(path, _) => write!(
                f,
                "{}: cannot write the picture; check that the folder exists and can be written to",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SaveError::Ending(_) => None,
            SaveError::Write(_, source) => Some(source),
        }
    }
}

// %% notebooks/90_plot.ipynb axis
/// How an axis spaces its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    #[default]
    Linear,
    /// Equal ratios are equally far apart; only numbers above zero have a place.
    Log,
}

/// Where the numbers from `lo` to `hi` lie on the page: from `start` to `end`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    scale: Scale,
    lo: f64,
    hi: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// 0 at `lo`, 1 at `hi`.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.lo) / (self.hi - self.lo),
            Scale::Log => (value / self.lo).log10() / (self.hi / self.lo).log10(),
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.start + self.share(value) * (self.end - self.start)
    }
}

fn drawable(value: f64, scale: Scale) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// From the smallest to the largest drawable value; never empty, so that an axis can be made of it.
fn extent(values: impl IntoIterator<Item = f64>, scale: Scale) -> (f64, f64) {
    const FAR: f64 = 1e300; // differences between numbers beyond it would be infinite
    let values = values
        .into_iter()
        .filter(|&v| drawable(v, scale))
        .map(|v| v.clamp(-FAR, FAR));
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| {
        (lo.min(v), hi.max(v))
    });
    match scale {
        Scale::Linear if lo > hi => (0.0, 1.0),
        Scale::Log if lo > hi => (1.0, 10.0),
        Scale::Linear if hi - lo <= lo.abs().max(hi.abs()) * 1e-9 || hi - lo < 1e-290 => {
            let around = if lo.abs() < 1e-290 {
                1.0
            } else {
                lo.abs() * 0.1
            };
            (lo - around, hi + around)
        }
        Scale::Log if hi / lo < 1.01 => (lo / 2.0, hi * 2.0),
        _ => (lo, hi),
    }
}

/// The range with a margin of `share` of it on both sides.
fn pad((lo, hi): (f64, f64), scale: Scale, share: f64) -> (f64, f64) {
    match scale {
        Scale::Linear => (lo - (hi - lo) * share, hi + (hi - lo) * share),
        Scale::Log => (lo / (hi / lo).powf(share), hi * (hi / lo).powf(share)),
    }
}

// %% notebooks/90_plot.ipynb number
/// Digits set high: 10 to the `n`th as readers know it.
fn power_of_ten(n: i32) -> String {
    let high = |c| match c {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize - '0' as usize],
    };
    format!("10{}", n.to_string().chars().map(high).collect::<String>())
}

/// With a true minus sign, and commas between the thousands from 10,000 on.
fn plain(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && whole.len() > 4 && (whole.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = text.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !is_zero { "−" } else { "" };
    format!("{sign}{grouped}{rest}")
}

/// The labels of the multiples of a step of 1, 2 or 5 times 10 to the `power`: equally many decimals each.
fn labels(values: &[f64], power: i32) -> Vec<String> {
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let exponent = if largest > 0.0 {
        (largest.log10() + 1e-9).floor() as i32
    } else {
        0
    };
    let label = |&v: &f64| match v {
        0.0 => "0".into(),
        v if (-4..6).contains(&exponent) => plain(v, (-power).max(0) as usize),
        v => format!(
            "{}×{}",
            plain(v / 10f64.powi(exponent), (exponent - power).max(0) as usize),
            power_of_ten(exponent)
        ),
    };
    values.iter().map(label).collect()
}

/// A number as short as four significant digits allow; whole numbers below a million in full.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    if value.fract() == 0.0 && value.abs() < 1e6 {
        return plain(value, 0);
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&exponent) {
        return format!(
            "{}×{}",
            trim(plain(value / 10f64.powi(exponent), 3)),
            power_of_ten(exponent)
        );
    }
    trim(plain(value, (3 - exponent).max(0) as usize))
}

fn trim(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

// %% notebooks/90_plot.ipynb ticks
/// Round numbers from `lo` to `hi` with their labels: the finest choice that `fits`.
fn ticks(
    lo: f64,
    hi: f64,
    scale: Scale,
    fits: impl Fn(&[(f64, String)]) -> bool,
) -> Vec<(f64, String)> {
    if scale == Scale::Log && hi / lo > 8.0 {
        return log_ticks(lo, hi, fits);
    }
    let finest = ((hi - lo) / 20.0).log10().floor() as i32;
    for power in finest.. {
        for digit in [1.0, 2.0, 5.0] {
            let values = multiples(lo, hi, digit, power);
            let labels = labels(&values, power);
            let ticks: Vec<_> = values.into_iter().zip(labels).collect();
            if ticks.len() <= 2 || fits(&ticks) {
                return ticks;
            }
        }
    }
    unreachable!("a step longer than the axis leaves at most one tick")
}

/// The multiples of `digit` · 10^`power` from `lo` to `hi`.
fn multiples(lo: f64, hi: f64, digit: f64, power: i32) -> Vec<f64> {
    // 3 · 0.1 is not 0.3, but 3 / 10 is: below 1, divide.
    let times = |i: f64| {
        if power < 0 {
            i * digit / 10f64.powi(-power)
        } else {
            i * digit * 10f64.powi(power)
        }
    };
    let step = times(1.0);
    let (first, last) = ((lo / step - 1e-9).ceil(), (hi / step + 1e-9).floor());
    (0..=(last - first).max(-1.0) as i64)
        .map(|i| times(first + i as f64))
        .collect()
}

/// 1, 2, 5, 10, 20, … where that fits, else every power of ten, every second, every fifth, …
fn log_ticks(lo: f64, hi: f64, fits: impl Fn(&[(f64, String)]) -> bool) -> Vec<(f64, String)> {
    let (first, last) = (lo.log10().floor() as i32, hi.log10().ceil() as i32);
    let short = lo > 9e-5 && hi < 1.1e5;
    let label = |digit: f64, power: i32| match () {
        () if short => plain(digit * 10f64.powi(power), (-power).max(0) as usize),
        () if digit == 1.0 => power_of_ten(power),
        () => format!("{digit}×{}", power_of_ten(power)),
    };
    let choices: [(&[f64], i32); 7] = [
        (&[1.0, 2.0, 5.0], 1),
        (&[1.0], 1),
        (&[1.0], 2),
        (&[1.0], 5),
        (&[1.0], 10),
        (&[1.0], 20),
        (&[1.0], 50),
    ];
    let mut ticks = vec![];
    for (digits, every) in choices {
        let powers = (first..=last).filter(move |power| power % every == 0);
        let all = powers.flat_map(|power| {
            digits
                .iter()
                .map(move |&digit| (digit * 10f64.powi(power), digit, power))
        });
        ticks = all
            .filter(|(v, ..)| (lo * 0.999..=hi * 1.001).contains(v))
            .map(|(v, digit, power)| (v, label(digit, power)))
            .collect();
        if fits(&ticks) {
            break;
        }
    }
    ticks
}

// %% notebooks/90_plot.ipynb axes
/// What stands on a chart's axes, and how they run.
#[derive(Clone, Debug)]
pub struct Axes {
    /// The name of the horizontal axis, with its unit.
    pub x: String,
    /// The name of the vertical axis, with its unit.
    pub y: String,
    /// How the horizontal axis spaces its numbers.
    pub x_scale: Scale,
    /// How the vertical axis spaces its numbers.
    pub y_scale: Scale,
    /// The ends of the horizontal axis; by default it holds all the data.
    pub x_range: Option<(f64, f64)>,
    /// The ends of the vertical axis; by default it holds all the data.
    pub y_range: Option<(f64, f64)>,
    /// Width and height of the picture in CSS pixels.
    pub size: (usize, usize),
}

impl Default for Axes {
    fn default() -> Axes {
        let (x, y) = (String::new(), String::new());
        Axes {
            x,
            y,
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            x_range: None,
            y_range: None,
            size: (640, 400),
        }
    }
}

/// Axes with these names, and everything else as [`Axes::default`] has it.
pub fn axes(x: impl Into<String>, y: impl Into<String>) -> Axes {
    Axes {
        x: x.into(),
        y: y.into(),
        ..Axes::default()
    }
}

/// The range that was asked for, if it can be drawn, else the one that suits the data.
#[track_caller]
fn chosen(asked: Option<(f64, f64)>, scale: Scale, suits: (f64, f64)) -> (f64, f64) {
    let Some((lo, hi)) = asked else { return suits };
    assert!(
        drawable(lo, scale) && drawable(hi, scale) && lo < hi,
        "an axis cannot run from {lo} to {hi} ({scale:?})"
    );
    (lo, hi)
}

// %% notebooks/90_plot.ipynb frame
const INK: Rgb = [34, 34, 34];
const GREY: Rgb = [85, 85, 85];
const AXIS: Rgb = [136, 136, 136];
const GRID: Rgb = [226, 226, 226];
const TITLE: f64 = 16.0;
const SMALL: f64 = 12.0;

/// A chart before its data are drawn.
struct Frame {
    page: Page,
    x: Axis,
    y: Axis,
}

/// Breaks a title into lines and returns where the next thing may begin.
fn heading(page: &mut Page, title: &str) -> f64 {
    let mut lines = vec![String::new()];
    for word in title.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty()
            && text_width(&format!("{line} {word}"), TITLE) > page.width as f64 - 24.0
        {
            lines.push(word.into());
        } else {
            *line = format!("{line} {word}").trim_start().into();
        }
    }
    let mut y = 8.0;
    for line in lines.iter().filter(|line| !line.is_empty()) {
        y += 20.0;
        page.text((12.0, y), Align::Left, TITLE, INK, line);
    }
    y
}

/// Title, vertical axis with its grid, and horizontal axis; `right` is the margin for a key.
fn frame(
    title: &str,
    axes: &Axes,
    (x_lo, x_hi): (f64, f64),
    (y_lo, y_hi): (f64, f64),
    right: f64,
) -> Frame {
    let (width, height) = axes.size;
    let mut page = Page::new(width, height);
    let mut top = heading(&mut page, title);
    if !axes.y.is_empty() {
        top += 22.0;
        page.text((12.0, top), Align::Left, SMALL, GREY, &axes.y);
    }
    let bottom = height as f64 - if axes.x.is_empty() { 32.0 } else { 52.0 };
    let y = Axis {
        scale: axes.y_scale,
        lo: y_lo,
        hi: y_hi,
        start: bottom,
        end: top + 16.0,
    };
    let ticks = ticks(y_lo, y_hi, y.scale, |ticks| {
        ticks
            .windows(2)
            .all(|t| y.at(t[0].0) - y.at(t[1].0) >= 28.0)
    });
    let widest = ticks
        .iter()
        .map(|(_, label)| text_width(label, SMALL))
        .fold(24.0, f64::max);
    let x = Axis {
        scale: axes.x_scale,
        lo: x_lo,
        hi: x_hi,
        start: 12.0 + widest + 8.0,
        end: width as f64 - right.max(28.0),
    };
    for (value, label) in ticks {
        let color = if value == 0.0 { AXIS } else { GRID };
        page.line(&[(x.start, y.at(value)), (x.end, y.at(value))], 1.0, color);
        page.text(
            (x.start - 8.0, y.at(value) + 4.5),
            Align::Right,
            SMALL,
            GREY,
            &label,
        );
    }
    page.line(&[(x.start, bottom), (x.end, bottom)], 1.0, AXIS);
    page.text(
        ((x.start + x.end) / 2.0, height as f64 - 12.0),
        Align::Middle,
        SMALL,
        GREY,
        &axes.x,
    );
    Frame { page, x, y }
}

/// Marks and numbers below the horizontal axis, as many as find room.
fn number_x(frame: &mut Frame) {
    let Frame { page, x, y } = frame;
    let room = |t: &[(f64, String)]| {
        let half = |label: &String| text_width(label, SMALL) / 2.0;
        x.at(t[1].0) - x.at(t[0].0) >= half(&t[0].1) + half(&t[1].1) + 20.0
    };
    for (value, label) in ticks(x.lo, x.hi, x.scale, |ticks| ticks.windows(2).all(room)) {
        page.line(
            &[(x.at(value), y.start), (x.at(value), y.start + 5.0)],
            1.0,
            AXIS,
        );
        page.text(
            (x.at(value), y.start + 19.0),
            Align::Middle,
            SMALL,
            GREY,
            &label,
        );
    }
}

// %% notebooks/90_plot.ipynb numbers
/// A number that can be drawn: every primitive number, and references to them.
pub trait Number: Copy {
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Number for $number {
            fn to_f64(self) -> f64 {
                self as f64
            }
        })*
    };
}
numbers!(f32 f64 i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

impl<N: Number> Number for &N {
    fn to_f64(self) -> f64 {
        (*self).to_f64()
    }
}

fn f64s(values: impl IntoIterator<Item: Number>) -> Vec<f64> {
    values.into_iter().map(Number::to_f64).collect()
}

// %% notebooks/90_plot.ipynb series
use std::ops::RangeInclusive;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Line,
    Dots,
}

/// Points to be drawn by [`plot`]: made by [`line`], [`scatter`] or [`curve`].
#[derive(Clone, Debug)]
pub struct Series {
    label: String,
    points: Vec<(f64, f64)>,
    style: Style,
}

#[track_caller]
fn series(
    style: Style,
    label: String,
    x: impl IntoIterator<Item: Number>,
    y: impl IntoIterator<Item: Number>,
) -> Series {
    let (mut x, y) = (x.into_iter(), f64s(y));
    let endless = x.size_hint().0 == usize::MAX; // such as `0..`: it counts the points
    let found: Vec<f64> = x.by_ref().take(y.len()).map(Number::to_f64).collect();
    let spare = if endless { 0 } else { x.count() };
    assert_eq!(
        found.len() + spare,
        y.len(),
        "series {label:?}: the number of x values (left) is not that of y values (right)"
    );
    Series {
        label,
        points: found.into_iter().zip(y).collect(),
        style,
    }
}

/// A line through points. Without x values of your own, say `0..`.
///
/// # Panics
/// When there are not as many x values as y values.
#[track_caller]
pub fn line(
    label: impl Into<String>,
    x: impl IntoIterator<Item: Number>,
    y: impl IntoIterator<Item: Number>,
) -> Series {
    series(Style::Line, label.into(), x, y)
}

/// A cloud of points.
///
/// # Panics
/// When there are not as many x values as y values.
#[track_caller]
pub fn scatter(
    label: impl Into<String>,
    x: impl IntoIterator<Item: Number>,
    y: impl IntoIterator<Item: Number>,
) -> Series {
    series(Style::Dots, label.into(), x, y)
}

/// The graph of a function, computed at 401 places.
pub fn curve(label: impl Into<String>, x: RangeInclusive<f64>, f: impl Fn(f64) -> f64) -> Series {
    let (from, to) = x.into_inner();
    let points = (0..=400)
        .map(|i| from + (to - from) * f64::from(i) / 400.0)
        .map(|x| (x, f(x)));
    Series {
        label: label.into(),
        points: points.collect(),
        style: Style::Line,
    }
}

// %% notebooks/90_plot.ipynb clip
type Point = (f64, f64);

/// The part of a straight line that lies in the frame (Liang and Barsky 1984).
fn clip(a: Point, b: Point, frame: &Frame) -> Option<(Point, Point)> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut from, mut to): (f64, f64) = (0.0, 1.0);
    let (x, y) = (&frame.x, &frame.y); // y.start is the lower end: the larger number
    for (step, room) in [
        (-dx, a.0 - x.start),
        (dx, x.end - a.0),
        (-dy, a.1 - y.end),
        (dy, y.start - a.1),
    ] {
        match step {
            0.0 if room < 0.0 => return None,
            0.0 => {}
            _ if step < 0.0 => from = from.max(room / step),
            _ => to = to.min(room / step),
        }
    }
    let at = |t: f64| {
        if t == 1.0 {
            b
        } else {
            (a.0 + t * dx, a.1 + t * dy)
        }
    };
    (from <= to).then(|| (at(from), at(to)))
}

/// A line as it is seen: cut where a value is missing and where it leaves the frame; a point with a gap on both sides stands alone.
fn pieces(points: &[Point], frame: &Frame) -> Vec<Vec<Point>> {
    const SLACK: f64 = 1e-6; // a computed place may miss the edge by a rounding error
    let place = |&(x, y): &Point| {
        let seen = drawable(x, frame.x.scale) && drawable(y, frame.y.scale);
        seen.then(|| (frame.x.at(x), frame.y.at(y)))
    };
    let inside = |(x, y): Point| {
        (frame.x.start - SLACK..=frame.x.end + SLACK).contains(&x)
            && (frame.y.end - SLACK..=frame.y.start + SLACK).contains(&y)
    };
    let mut pieces: Vec<Vec<Point>> = vec![];
    let mut before = None;
    for at in points.iter().map(place) {
        let segment = before.zip(at).and_then(|(a, b)| clip(a, b, frame));
        match (segment, pieces.last_mut(), at) {
            (Some((a, b)), Some(piece), _) if piece.last() == Some(&a) => piece.push(b),
            (Some((a, b)), ..) => pieces.push(vec![a, b]),
            (None, _, Some(at)) if before.is_none() && inside(at) => pieces.push(vec![at]),
            _ => {}
        }
        before = at;
    }
    pieces
}

// %% notebooks/90_plot.ipynb dashes
/// Colours that stay apart for every kind of colour vision, and in grey: neighbours differ in lightness too.
const COLORS: [Rgb; 6] = [
    [0, 80, 150],
    [225, 110, 0],
    [0, 140, 110],
    [150, 40, 110],
    [90, 165, 225],
    [110, 110, 110],
];
/// Lengths of stroke and gap in turn; the first is a whole line.
const DASHES: [&[f64]; 4] = [&[], &[9.0, 6.0], &[0.1, 5.0], &[10.0, 5.0, 0.1, 5.0]];

fn length(points: &[Point]) -> f64 {
    points
        .windows(2)
        .map(|p| (p[1].0 - p[0].0).hypot(p[1].1 - p[0].1))
        .sum()
}

/// The strokes of a dashed line.
fn dashes(points: &[Point], pattern: &[f64]) -> Vec<Vec<Point>> {
    if pattern.is_empty() || points.len() < 2 {
        return vec![points.to_vec()];
    }
    let (mut strokes, mut turn, mut left) = (vec![vec![points[0]]], 0, pattern[0]);
    for ends in points.windows(2) {
        let (mut at, to) = (ends[0], ends[1]);
        loop {
            let rest = length(&[at, to]);
            let next = if rest > left {
                (
                    at.0 + (to.0 - at.0) * left / rest,
                    at.1 + (to.1 - at.1) * left / rest,
                )
            } else {
                to
            };
            if turn % 2 == 0 {
                strokes
                    .last_mut()
                    .expect("it begins with a stroke")
                    .push(next);
            }
            if rest <= left {
                left -= rest;
                break;
            }
            turn += 1;
            (at, left) = (next, pattern[turn % pattern.len()]);
            if turn % 2 == 0 {
                strokes.push(vec![at]);
            }
        }
    }
    strokes
}

// %% notebooks/90_plot.ipynb draw
/// Draws a line; one that zigzags is drawn whole, for its dashes would only look like noise.
fn draw_line(page: &mut Page, piece: &[Point], which: usize, span: f64) {
    let color = COLORS[which % COLORS.len()];
    let pattern = if length(piece) < 3.0 * span {
        DASHES[which % DASHES.len()]
    } else {
        &[]
    };
    match piece {
        [alone] => page.dot(*alone, 2.0, color),
        _ => dashes(piece, pattern)
            .iter()
            .for_each(|stroke| page.line(stroke, 2.0, color)),
    }
}

/// Draws one point of a cloud: disc, triangle, square or cross, so that clouds differ in grey as well.
fn draw_dot(page: &mut Page, (x, y): Point, which: usize, r: f64) {
    let color = COLORS[which % COLORS.len()];
    match which % 4 {
        0 => page.dot((x, y), r, color),
        1 => page.area(
            &[
                (x, y - 1.3 * r),
                (x + 1.2 * r, y + 0.9 * r),
                (x - 1.2 * r, y + 0.9 * r),
            ],
            color,
        ),
        2 => page.area(
            &[
                (x - r, y - r),
                (x + r, y - r),
                (x + r, y + r),
                (x - r, y + r),
            ],
            color,
        ),
        _ => {
            page.line(&[(x - r, y - r), (x + r, y + r)], 0.6 * r, color);
            page.line(&[(x - r, y + r), (x + r, y - r)], 0.6 * r, color);
        }
    }
}

/// Shortens a text until it fits.
fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.into();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while !kept.is_empty() && text_width(&format!("{}…", String::from_iter(&kept)), size) > width
    {
        kept.pop();
    }
    String::from_iter(kept).trim_end().to_owned() + "…"
}

/// Names the series beside the chart, each as near as can be to where it ends.
fn draw_key(frame: &mut Frame, series: &[Series]) {
    const GAP: f64 = 18.0;
    let left = frame.x.end + 12.0;
    let mut entries = vec![];
    for (which, one) in series
        .iter()
        .enumerate()
        .filter(|(_, one)| !one.label.is_empty())
    {
        let last = pieces(&one.points, frame)
            .last()
            .and_then(|piece| piece.last().copied());
        let wanted = match one.style {
            Style::Line => last.map_or(frame.y.start, |(_, y)| y),
            Style::Dots => frame.y.end + GAP * entries.len() as f64,
        };
        entries.push((wanted, which, one));
    }
    entries.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..entries.len() {
        entries[i].0 = entries[i].0.max(entries[i - 1].0 + GAP);
    }
    let mut lowest = frame.y.start;
    for entry in entries.iter_mut().rev() {
        entry.0 = entry.0.min(lowest);
        lowest = entry.0 - GAP;
    }
    for (y, which, one) in entries {
        match one.style {
            Style::Line => draw_line(&mut frame.page, &[(left, y), (left + 24.0, y)], which, 24.0),
            Style::Dots => draw_dot(&mut frame.page, (left + 12.0, y), which, 4.0),
        }
        frame.page.text(
            (left + 32.0, y + 4.5),
            Align::Left,
            SMALL,
            INK,
            &fit(&one.label, SMALL, KEY),
        );
    }
}
/// The longest name that a key shows whole.
const KEY: f64 = 150.0;

// %% notebooks/90_plot.ipynb plot
/// A chart of lines, clouds of points and functions.
///
/// Values that cannot be drawn leave a gap. Lines are named beside the chart, each near its end.
///
/// # Panics
/// When a range in `axes` runs backwards, or holds a number that its scale cannot show.
#[track_caller]
pub fn plot(
    title: impl Into<String>,
    axes: Axes,
    series: impl IntoIterator<Item = Series>,
) -> Figure {
    let (title, series) = (title.into(), series.into_iter().collect::<Vec<_>>());
    let seen = |&(x, y): &Point| drawable(x, axes.x_scale) && drawable(y, axes.y_scale);
    let points = || {
        series
            .iter()
            .flat_map(|one| one.points.iter().copied())
            .filter(seen)
    };
    let clouds = series.iter().any(|one| one.style == Style::Dots);
    let x_data = extent(points().map(|p| p.0), axes.x_scale);
    let y_data = extent(points().map(|p| p.1), axes.y_scale);
    let x = chosen(
        axes.x_range,
        axes.x_scale,
        pad(x_data, axes.x_scale, if clouds { 0.03 } else { 0.0 }),
    );
    let y = chosen(axes.y_range, axes.y_scale, from_zero(y_data, axes.y_scale));
    let labels = series
        .iter()
        .filter(|one| !one.label.is_empty())
        .map(|one| text_width(&one.label, SMALL).min(KEY));
    let key = labels
        .reduce(f64::max)
        .map_or(0.0, |width| 12.0 + 32.0 + width + 12.0);
    let mut frame = frame(&title, &axes, x, y, key);
    number_x(&mut frame);
    for (which, one) in series.iter().enumerate() {
        draw_series(&mut frame, one, which);
    }
    draw_key(&mut frame, &series);
    if points().next().is_none() {
        nothing(&mut frame.page);
    }
    let described = series.iter().map(describe).collect::<Vec<_>>().join("; ");
    let description = format!(
        "Chart of {} against {}: {described}.",
        named(&axes.y, "y"),
        named(&axes.x, "x")
    );
    Figure {
        page: frame.page,
        title,
        description,
    }
}

/// Room above and below, and zero at the end of the axis where it is near: a third of the largest value reads as a third.
fn from_zero((lo, hi): (f64, f64), scale: Scale) -> (f64, f64) {
    let (low, high) = pad((lo, hi), scale, 0.05);
    match scale {
        Scale::Linear if lo >= 0.0 && lo < hi / 3.0 => (0.0, high),
        Scale::Linear if hi <= 0.0 && hi > lo / 3.0 => (low, 0.0),
        _ => (low, high),
    }
}

fn draw_series(frame: &mut Frame, one: &Series, which: usize) {
    let pieces = match one.style {
        Style::Line => pieces(&one.points, frame),
        Style::Dots => one
            .points
            .iter()
            .flat_map(|&point| pieces(&[point], frame))
            .collect(),
    };
    let radius = match pieces.len() {
        0..=200 => 3.5,
        201..=2000 => 2.5,
        _ => 1.5,
    };
    for piece in pieces {
        match one.style {
            Style::Line => draw_line(&mut frame.page, &piece, which, frame.x.end - frame.x.start),
            Style::Dots => draw_dot(&mut frame.page, piece[0], which, radius),
        }
    }
}

fn nothing(page: &mut Page) {
    page.text(
        (page.width as f64 / 2.0, page.height as f64 / 2.0),
        Align::Middle,
        SMALL,
        GREY,
        "nothing to draw",
    );
}

fn named<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

/// One series in words.
fn describe(one: &Series) -> String {
    let finite: Vec<_> = one
        .points
        .iter()
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    let (Some((x0, y0)), Some((x1, y1))) = (finite.first(), finite.last()) else {
        return format!("{} without a value", named(&one.label, "a series"));
    };
    let (lo, hi) = finite.iter().fold((f64::MAX, f64::MIN), |(lo, hi), p| {
        (lo.min(p.1), hi.max(p.1))
    });
    let [x0, y0, x1, y1, lo, hi] = [*x0, *y0, *x1, *y1, lo, hi].map(number);
    match one.style {
        Style::Line => format!(
            "line {} from ({x0}, {y0}) to ({x1}, {y1}), between {lo} and {hi}",
            one.label
        ),
        Style::Dots => format!(
            "{} points {} between {lo} and {hi}",
            finite.len(),
            one.label
        ),
    }
}

// %% notebooks/90_plot.ipynb hist
/// A histogram: how many of the values fall into each of `bins` equal intervals between the smallest and the largest
/// (or over `x_range`). On a logarithmic x axis the intervals have equal ratios.
///
/// # Panics
/// When `bins` is 0.
#[track_caller]
pub fn hist(
    title: impl Into<String>,
    axes: Axes,
    values: impl IntoIterator<Item: Number>,
    bins: usize,
) -> Figure {
    assert!(bins > 0, "hist: a histogram needs at least one bin");
    let (title, values) = (title.into(), f64s(values));
    let (lo, hi) = chosen(
        axes.x_range,
        axes.x_scale,
        extent(values.iter().copied(), axes.x_scale),
    );
    let axis = Axis {
        scale: axes.x_scale,
        lo,
        hi,
        start: 0.0,
        end: bins as f64,
    };
    let mut counts = vec![0usize; bins];
    for &value in values
        .iter()
        .filter(|&&v| drawable(v, axes.x_scale) && (lo..=hi).contains(&v))
    {
        counts[(axis.at(value) as usize).min(bins - 1)] += 1;
    }
    let shown: usize = counts.iter().sum();
    let top = counts.iter().max().map_or(1, |&most| most.max(1)) as f64;
    let y = chosen(
        axes.y_range,
        axes.y_scale,
        if axes.y_scale == Scale::Log {
            (0.5, top * 1.2)
        } else {
            (0.0, top * 1.05)
        },
    );
    let mut frame = frame(&title, &axes, (lo, hi), y, 0.0);
    number_x(&mut frame);
    let width = (frame.x.end - frame.x.start) / bins as f64;
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (left, gap) = (
            frame.x.start + i as f64 * width,
            if width > 4.0 { 1.0 } else { 0.0 },
        );
        draw_bar(
            &mut frame,
            left,
            left + width - gap,
            count as f64,
            COLORS[0],
        );
    }
    if shown == 0 {
        nothing(&mut frame.page);
    }
    let fullest = counts
        .iter()
        .position(|&count| count as f64 == top)
        .unwrap_or(0);
    let edge = |i: usize| number(axis_value(&axis, i as f64 / bins as f64));
    let others = if shown < values.len() {
        format!(" {} more values are not shown.", values.len() - shown)
    } else {
        String::new()
    };
    let description = format!(
        "Histogram of {shown} values from {} to {} in {bins} bins. The fullest, from {} to {}, holds {}.{others}",
        number(lo),
        number(hi),
        edge(fullest),
        edge(fullest + 1),
        counts[fullest]
    );
    Figure {
        page: frame.page,
        title,
        description,
    }
}

/// The number that lies at a share of the axis: the inverse of `Axis::share`.
fn axis_value(axis: &Axis, share: f64) -> f64 {
    match axis.scale {
        Scale::Linear => axis.lo + (axis.hi - axis.lo) * share,
        Scale::Log => axis.lo * (axis.hi / axis.lo).powf(share),
    }
}

/// An upright bar from zero (on a logarithmic axis from its foot) to `value`, cut at the frame.
fn draw_bar(frame: &mut Frame, left: f64, right: f64, value: f64, color: Rgb) {
    let cut = |value: f64| frame.y.at(value.clamp(frame.y.lo, frame.y.hi));
    let (foot, head) = (cut(0.0), cut(value));
    frame.page.area(
        &[(left, foot), (right, foot), (right, head), (left, head)],
        color,
    );
}

// %% notebooks/90_plot.ipynb bar
use std::fmt::Display;

/// A bar for each name. Where the names do not fit side by side, the bars lie, one below the other.
#[track_caller]
pub fn bar(
    title: impl Into<String>,
    axes: Axes,
    bars: impl IntoIterator<Item = (impl Display, impl Number)>,
) -> Figure {
    let title = title.into();
    let bars: Vec<(String, f64)> = bars
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.to_f64()))
        .collect();
    let values = bars.iter().map(|bar| bar.1);
    let y = match axes.y_scale {
        Scale::Linear => {
            let (lo, hi) = extent(values.chain([0.0]), Scale::Linear);
            (
                if lo < 0.0 { lo * 1.05 } else { 0.0 },
                if hi > 0.0 { hi * 1.08 } else { 0.0 },
            )
        }
        Scale::Log => pad(extent(values, Scale::Log), Scale::Log, 0.1),
    };
    let y = chosen(axes.y_range, axes.y_scale, y);
    let mut frame = frame(&title, &axes, (0.0, bars.len().max(1) as f64), y, 0.0);
    let slot = frame.x.at(1.0) - frame.x.at(0.0);
    let numbered = bars
        .iter()
        .all(|(_, value)| text_width(&number(*value), SMALL) <= slot - 4.0);
    for (i, (name, value)) in bars.iter().enumerate() {
        let middle = frame.x.at(i as f64 + 0.5);
        frame.page.text(
            (middle, frame.y.start + 19.0),
            Align::Middle,
            SMALL,
            GREY,
            &fit(name, SMALL, slot - 4.0),
        );
        if drawable(*value, axes.y_scale) {
            draw_bar(
                &mut frame,
                middle - 0.36 * slot,
                middle + 0.36 * slot,
                *value,
                COLORS[0],
            );
        }
        if numbered {
            let head = frame.y.at(value.clamp(frame.y.lo, frame.y.hi));
            frame.page.text(
                (
                    middle,
                    if *value < 0.0 {
                        head + 14.0
                    } else {
                        head - 5.0
                    },
                ),
                Align::Middle,
                SMALL,
                INK,
                &number(*value),
            );
        }
    }
    if bars.is_empty() {
        nothing(&mut frame.page);
    }
    let described = bars
        .iter()
        .map(|(name, value)| format!("{name} {}", number(*value)))
        .collect::<Vec<_>>()
        .join(", ");
    Figure {
        page: frame.page,
        title,
        description: format!("Bars of {}: {described}.", named(&axes.y, "values")),
    }
}

// %% notebooks/90_plot.ipynb colors
/// How numbers become colours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Colors {
    /// From black to white.
    #[default]
    Grey,
    /// From dark violet over green to yellow: lighter means more, also in grey and for the colour-blind.
    Viridis,
    /// Blue below zero, white at zero, red above.
    BlueRed,
    /// Three numbers make a pixel: (h, w, 3), by default from 0 to 1.
    Rgb,
    /// Three images make one, red, green and blue: (3, h, w), by default from 0 to 1.
    RgbPlanes,
}

const VIRIDIS: [Rgb; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];
const BLUE_RED: [Rgb; 5] = [
    [20, 60, 130],
    [110, 165, 215],
    [247, 247, 247],
    [230, 130, 95],
    [140, 20, 30],
];
/// Where there is no number: a colour that no map has.
const MISSING: Rgb = [255, 0, 200];

/// The colour at a share from 0 to 1 of a list of colours.
fn mix(colors: &[Rgb], share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (colors.len() - 1) as f64;
    let (low, rest) = (place.floor(), place.fract());
    let (a, b) = (colors[low as usize], colors[place.ceil() as usize]);
    std::array::from_fn(|i| (f64::from(a[i]) * (1.0 - rest) + f64::from(b[i]) * rest).round() as u8)
}

/// What an image looks like.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// How numbers become colours.
    pub colors: Colors,
    /// The numbers of the first and of the last colour; by default the smallest and the largest there are.
    pub range: Option<(f64, f64)>,
    /// The side of a pixel, in CSS pixels; by default what fits.
    pub zoom: Option<usize>,
    /// Images in a row; by default such that the rows come out even.
    pub columns: Option<usize>,
}

impl Look {
    /// How many numbers make one pixel.
    fn channels(&self) -> usize {
        if matches!(self.colors, Colors::Rgb | Colors::RgbPlanes) {
            3
        } else {
            1
        }
    }

    fn range(&self, values: impl IntoIterator<Item = f64>) -> (f64, f64) {
        let (lo, hi) = match self.colors {
            Colors::Rgb | Colors::RgbPlanes => (0.0, 1.0),
            _ => values
                .into_iter()
                .filter(|v| v.is_finite())
                .fold((f64::MAX, f64::MIN), |(lo, hi), v| (lo.min(v), hi.max(v))),
        };
        let suits = match self.colors {
            _ if lo > hi => (0.0, 1.0),
            Colors::BlueRed => extent(
                [-hi.abs().max(lo.abs()), hi.abs().max(lo.abs())],
                Scale::Linear,
            ),
            _ if lo == hi => (lo, lo + lo.abs().max(1.0)),
            _ => (lo, hi),
        };
        chosen(self.range, Scale::Linear, suits)
    }

    /// RGB bytes of an image.
    fn rgb(&self, values: &[f64], (lo, hi): (f64, f64)) -> Vec<u8> {
        let share = |value: f64| ((value - lo) / (hi - lo)).clamp(0.0, 1.0);
        let color = |i: usize| match self.colors {
            _ if values[i].is_nan() => MISSING,
            Colors::Grey => mix(&[[0; 3], [255; 3]], share(values[i])),
            Colors::Viridis => mix(&VIRIDIS, share(values[i])),
            Colors::BlueRed => mix(&BLUE_RED, share(values[i])),
            Colors::Rgb => {
                std::array::from_fn(|c| (share(values[3 * i + c]) * 255.0).round() as u8)
            }
            Colors::RgbPlanes => std::array::from_fn(|c| {
                (share(values[c * values.len() / 3 + i]) * 255.0).round() as u8
            }),
        };
        (0..values.len() / self.channels())
            .flat_map(color)
            .collect()
    }
}

// %% notebooks/90_plot.ipynb imshow
#[track_caller]
fn check_shape(what: &str, values: &[f64], (h, w): (usize, usize), channels: usize) {
    assert!(
        h > 0 && w > 0 && values.len() == h * w * channels,
        "{what}: {} numbers are not {h} by {w} pixels of {channels}",
        values.len()
    );
}

/// One image of (h, w) pixels, row by row from the top, with the numbers of its rows and columns and a scale of its colours.
/// NaN is drawn in pink.
///
/// # Panics
/// When there are not h · w numbers (three times as many for colours).
#[track_caller]
pub fn imshow(
    title: impl Into<String>,
    pixels: impl IntoIterator<Item: Number>,
    (h, w): (usize, usize),
    look: Look,
) -> Figure {
    let (title, values) = (title.into(), f64s(pixels));
    check_shape("imshow", &values, (h, w), look.channels());
    let (lo, hi) = look.range(values.iter().copied());
    let zoom = look.zoom.unwrap_or((360 / h.max(w)).max(1)).max(1);
    let left = 20 + text_width(&(h - 1).to_string(), SMALL).ceil() as usize;
    let bar = if look.channels() == 1 {
        36 + text_width(&number(lo), SMALL)
            .max(text_width(&number(hi), SMALL))
            .ceil() as usize
    } else {
        0
    };
    let mut page = Page::new((left + w * zoom + 28 + bar).max(240), 0);
    let top = heading(&mut page, &title) as usize + 14;
    page.height = top + h * zoom + 32;
    page.pixels((left, top), zoom, (h, w), look.rgb(&values, (lo, hi)));
    let across = Axis {
        scale: Scale::Linear,
        lo: 0.0,
        hi: (w - 1) as f64,
        start: left as f64 + zoom as f64 / 2.0,
        end: (left + w * zoom) as f64 - zoom as f64 / 2.0,
    };
    let down = Axis {
        scale: Scale::Linear,
        lo: 0.0,
        hi: (h - 1) as f64,
        start: top as f64 + zoom as f64 / 2.0,
        end: (top + h * zoom) as f64 - zoom as f64 / 2.0,
    };
    for (column, label) in whole_ticks(&across, 40.0) {
        page.text(
            (across.at(column), (top + h * zoom) as f64 + 18.0),
            Align::Middle,
            SMALL,
            GREY,
            &label,
        );
    }
    for (row, label) in whole_ticks(&down, 28.0) {
        page.text(
            (left as f64 - 6.0, down.at(row) + 4.5),
            Align::Right,
            SMALL,
            GREY,
            &label,
        );
    }
    if look.channels() == 1 {
        color_bar(
            &mut page,
            (left + w * zoom + 20, top),
            h * zoom,
            &look,
            (lo, hi),
        );
    }
    let description = format!(
        "Image of {h} by {w} pixels, values from {} to {}.",
        number(lo),
        number(hi)
    );
    Figure {
        page,
        title,
        description,
    }
}

/// The numbers of some rows or columns, at least `room` CSS pixels apart.
fn whole_ticks(axis: &Axis, room: f64) -> Vec<(f64, String)> {
    if axis.lo == axis.hi {
        return vec![];
    }
    let whole = |t: &(f64, String)| t.0.fract() == 0.0;
    ticks(axis.lo, axis.hi, Scale::Linear, |ticks| {
        ticks.iter().all(whole)
            && ticks
                .windows(2)
                .all(|t| axis.at(t[1].0) - axis.at(t[0].0) >= room)
    })
}

/// The colours from `lo` (below) to `hi` (above) with their numbers.
fn color_bar(
    page: &mut Page,
    (left, top): (usize, usize),
    height: usize,
    look: &Look,
    (lo, hi): (f64, f64),
) {
    const WIDTH: usize = 12;
    let values: Vec<f64> = (0..height)
        .flat_map(|y| [hi - (hi - lo) * (y as f64 + 0.5) / height as f64; WIDTH])
        .collect();
    page.pixels((left, top), 1, (height, WIDTH), look.rgb(&values, (lo, hi)));
    for (value, y) in [(hi, top as f64 + 9.0), (lo, (top + height) as f64)] {
        page.text(
            ((left + WIDTH + 6) as f64, y),
            Align::Left,
            SMALL,
            GREY,
            &number(value),
        );
    }
}

// %% notebooks/90_plot.ipynb show-images
/// A grid of images of (h, w) pixels with captions: pairs of both, as `labels.iter().zip(images)` makes them.
/// All images share one scale of colours.
///
/// # Panics
/// When an image does not have h · w numbers (three times as many for colours).
#[track_caller]
pub fn show_images(
    title: impl Into<String>,
    images: impl IntoIterator<Item = (impl Display, impl IntoIterator<Item = impl Number>)>,
    (h, w): (usize, usize),
    look: Look,
) -> Figure {
    const GAP: usize = 12;
    let title = title.into();
    let images: Vec<(String, Vec<f64>)> = images
        .into_iter()
        .map(|(caption, pixels)| (caption.to_string(), f64s(pixels)))
        .collect();
    images
        .iter()
        .for_each(|(_, values)| check_shape("show_images", values, (h, w), look.channels()));
    let range = look.range(images.iter().flat_map(|(_, values)| values.iter().copied()));
    let columns = look.columns.unwrap_or(even_columns(images.len())).max(1);
    let zoom = look
        .zoom
        .unwrap_or((620 / columns).saturating_sub(GAP).min(160) / w.max(h).max(1))
        .max(1);
    let caption = if images.iter().all(|(caption, _)| caption.is_empty()) {
        0
    } else {
        20
    };
    let mut page = Page::new((GAP + columns * (w * zoom + GAP)).max(240), 0);
    let top = heading(&mut page, &title) as usize + 14;
    for (i, (name, values)) in images.iter().enumerate() {
        let (left, top) = (
            GAP + i % columns * (w * zoom + GAP),
            top + i / columns * (h * zoom + caption + GAP),
        );
        page.pixels((left, top), zoom, (h, w), look.rgb(values, range));
        let middle = ((left + w * zoom / 2) as f64, (top + h * zoom + 16) as f64);
        page.text(
            middle,
            Align::Middle,
            SMALL,
            INK,
            &fit(name, SMALL, (w * zoom + GAP) as f64),
        );
    }
    page.height = top + images.len().div_ceil(columns).max(1) * (h * zoom + caption + GAP);
    if images.is_empty() {
        nothing(&mut page);
    }
    let captions = if caption > 0 {
        images
            .iter()
            .map(|(caption, _)| caption.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    } else {
        "no captions".into()
    };
    let description = format!(
        "{} images of {h} by {w} pixels, {columns} in a row: {captions}.",
        images.len()
    );
    Figure {
        page,
        title,
        description,
    }
}

/// Between a square and twice as wide as high, the number of columns that leaves the fewest empty places in the last row.
fn even_columns(n: usize) -> usize {
    let square = (n as f64).sqrt();
    let choices = square.ceil() as usize..=(2.0 * square).ceil() as usize;
    choices
        .filter(|&c| c > 0)
        .min_by_key(|c| n.div_ceil(*c) * c - n)
        .unwrap_or(1)
}
