// Owned by notebooks/90_plot.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash bc110260dd73dade
//! Charts and images that show themselves in a notebook, and save themselves as PNG or SVG elsewhere.
//!
//! ```
//! use minai::plot::{axes, curve, line, plot};
//!
//! let losses = [2.3, 1.1, 0.6, 0.4];
//! let fit = curve("1 / (x + 0.4)", 0.0..=3.0, |x| 1.0 / (x + 0.4));
//! let figure = plot("Loss falls", axes("step", "loss"), [line("train", 0.., &losses), fit]);
//! assert!(figure.svg().contains("Loss falls"));
//! ```
//!
//! Numbers come as anything that iterates over numbers: slices, arrays, `Vec`s, ranges, ndarray's arrays.
//! Values that cannot be drawn (NaN, infinities, on a logarithmic axis also zero and below) leave a gap.
//! Every picture describes itself to those who cannot see it.

// %% notebooks/90_plot.ipynb marks
/// A place on a page, in CSS pixels: to the right and down from the top left corner.
pub type Point = (f64, f64);

/// A colour: red, green and blue.
pub type Rgb = [u8; 3];

/// Which part of a text stands at the given place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Align {
    /// Its beginning.
    Left,
    /// Its middle.
    Middle,
    /// Its end.
    Right,
}

/// Rows of pixels from the top, three bytes each.
#[derive(Clone, Debug)]
struct Image {
    shape: (usize, usize), // (h, w)
    rgb: Vec<u8>,
}

// %% notebooks/90_plot.ipynb mark
#[derive(Clone, Debug)]
enum Mark {
    Line(Vec<Point>, f64, Rgb),
    Area(Vec<Point>, Rgb),
    Dot(Point, f64, Rgb),
    Text(Point, Align, f64, Rgb, String),
    Image((usize, usize), usize, Image),
}

// %% notebooks/90_plot.ipynb page
/// A sheet of white paper with marks on it.
#[derive(Clone, Debug)]
pub struct Page {
    width: usize,
    height: usize,
    marks: Vec<Mark>,
}

impl Page {
    /// An empty page of this size in CSS pixels.
    pub fn new(width: usize, height: usize) -> Page {
        Page { width, height, marks: vec![] }
    }

    /// A line through the points, with round joints and ends.
    pub fn line(&mut self, points: &[Point], width: f64, color: Rgb) {
        self.marks.push(Mark::Line(points.to_vec(), width, color));
    }

    /// A filled shape with corners at the points.
    pub fn area(&mut self, points: &[Point], color: Rgb) {
        self.marks.push(Mark::Area(points.to_vec(), color));
    }
}

// %% notebooks/90_plot.ipynb page-b
impl Page {
    /// A filled disc.
    pub fn dot(&mut self, at: Point, radius: f64, color: Rgb) {
        self.marks.push(Mark::Dot(at, radius, color));
    }

    /// A line of text whose baseline is at `at`; `size` is the height of its font.
    pub fn text(&mut self, at: Point, align: Align, size: f64, color: Rgb, text: &str) {
        let text = text.replace(char::is_control, " ");
        self.marks.push(Mark::Text(at, align, size, color, text));
    }

    /// An image of (h, w) pixels, three bytes each; a pixel is a square with a side of `zoom`.
    /// Images lie below all other marks.
    #[track_caller]
    pub fn image(&mut self, at: (usize, usize), zoom: usize, shape: (usize, usize), rgb: Vec<u8>) {
        assert_eq!(rgb.len(), shape.0 * shape.1 * 3, "Page::image: bytes for shape {shape:?}");
        self.marks.push(Mark::Image(at, zoom, Image { shape, rgb }));
    }
}

// %% notebooks/90_plot.ipynb font
use std::sync::Once;

use minai::kernels::font::DEJAVU_SANS;
use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// What an SVG asks its viewer for; under the same name plotters finds the embedded font.
const FAMILY: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

/// plotters' font size in ems: from the highest to the lowest point of DejaVu Sans.
const EM: f64 = 1.164;

fn font(size: f64) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let registered = register_font(FAMILY, FontStyle::Normal, DEJAVU_SANS);
        assert!(registered.is_ok(), "the embedded font is damaged");
    });
    FontDesc::new(FontFamily::Name(FAMILY), size, FontStyle::Normal)
}

/// The length of a text in CSS pixels when its font is `size` high.
pub fn text_width(text: &str, size: f64) -> f64 {
    let (width, _) = font(1000.0 * EM).box_size(text).expect("the font is registered");
    f64::from(width) * size / 1000.0
}

// %% notebooks/90_plot.ipynb ink
const INK: Rgb = [34, 34, 34];
const GREY: Rgb = [85, 85, 85];
const RULE: Rgb = [136, 136, 136];
const GRID: Rgb = [226, 226, 226];
const TITLE: f64 = 16.0;
const SMALL: f64 = 12.0;
const MARGIN: f64 = 12.0;

// %% notebooks/90_plot.ipynb pen
/// How a backend wants its numbers.
struct Pen {
    /// Units per CSS pixel.
    unit: f64,
    /// Font size per em.
    em: f64,
    /// From the top of a text to its baseline, in ems.
    baseline: f64,
    /// Whether the segments of a line come out joined.
    joins: bool,
}

impl Pen {
    fn length(&self, length: f64) -> i32 {
        (length * self.unit).round() as i32
    }

    fn place(&self, &(x, y): &Point) -> (i32, i32) {
        (self.length(x), self.length(y))
    }
}

// %% notebooks/90_plot.ipynb paint-line
use plotters::prelude::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor, TextStyle};

const TAKEN: &str = "a picture in memory takes every mark";

fn paint_line(on: &mut impl DrawingBackend, points: Vec<(i32, i32)>, width: i32, ink: RGBColor, pen: &Pen) {
    let style = ink.stroke_width(width as u32);
    if pen.joins {
        return on.draw_path(points, &style).expect(TAKEN);
    }
    for ends in points.windows(2) {
        on.draw_line(ends[0], ends[1], &style).expect(TAKEN);
    }
    for joint in points {
        on.draw_circle(joint, width as u32 / 2, &style, true).expect(TAKEN);
    }
}

// %% notebooks/90_plot.ipynb paint
fn paint(page: &Page, on: &mut impl DrawingBackend, pen: &Pen) {
    let ink = |&[r, g, b]: &Rgb| RGBColor(r, g, b);
    let places = |points: &[Point]| points.iter().map(|at| pen.place(at)).collect::<Vec<_>>();
    for mark in &page.marks {
        match mark {
            Mark::Line(points, width, color) => {
                paint_line(on, places(points), pen.length(*width), ink(color), pen);
            }
            Mark::Area(points, color) => on.fill_polygon(places(points), &ink(color).filled()).expect(TAKEN),
            Mark::Dot(at, radius, color) => {
                let radius = pen.length(*radius) as u32;
                on.draw_circle(pen.place(at), radius, &ink(color).filled(), true).expect(TAKEN);
            }
            Mark::Text(at, align, size, color, text) => {
                let side = match align {
                    Align::Left => HPos::Left,
                    Align::Middle => HPos::Center,
                    Align::Right => HPos::Right,
                };
                let (font, color) = (font(size * pen.em * pen.unit), ink(color));
                let style = TextStyle::from(font).color(&color).pos(Pos::new(side, VPos::Top));
                on.draw_text(text, &style, pen.place(&(at.0, at.1 - pen.baseline * size))).expect(TAKEN);
            }
            Mark::Image(..) => {} // no backend draws it: `svg` embeds it, `raster` copies it
        }
    }
    on.present().expect(TAKEN);
}

// %% notebooks/90_plot.ipynb encode
use base64::Engine;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of a PNG file.
fn encode_png(image: &Image) -> Vec<u8> {
    let ((h, w), mut bytes) = (image.shape, vec![]);
    let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect(TAKEN);
    writer.write_image_data(&image.rgb).expect(TAKEN);
    writer.finish().expect(TAKEN);
    bytes
}

// %% notebooks/90_plot.ipynb escape
/// Text as it may stand in XML and HTML.
fn escape(text: &str) -> String {
    let text = text.replace(char::is_control, " ").replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

// %% notebooks/90_plot.ipynb svg-image
fn svg_image(mark: &Mark, pen: &Pen) -> Option<String> {
    let Mark::Image((x, y), zoom, image) = mark else {
        return None;
    };
    let (h, w) = image.shape;
    let [x, y, w, h] = [*x, *y, w * zoom, h * zoom].map(|length| pen.length(length as f64));
    Some(format!(
        "<image x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" preserveAspectRatio=\"none\" \
         style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
        base64(encode_png(image))
    ))
}

// %% notebooks/90_plot.ipynb svg
fn svg(page: &Page, title: &str, description: &str) -> String {
    let pen = Pen { unit: 10.0, em: 1.24, baseline: 0.76, joins: true };
    let [w, h] = [page.width, page.height].map(|length| pen.length(length as f64));
    let mut marks = String::new();
    paint(page, &mut SVGBackend::with_string(&mut marks, (w as u32, h as u32)), &pen);
    let (_, marks) = marks.split_once('\n').expect("the first line is plotters' opening tag");
    let images: String = page.marks.iter().filter_map(|mark| svg_image(mark, &pen)).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
         viewBox=\"0 0 {w} {h}\" stroke-linejoin=\"round\" stroke-linecap=\"round\" \
         role=\"img\" aria-label=\"{title}. {description}\">\n\
         <title>{title}</title>\n<desc>{description}</desc>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#FFFFFF\"/>\n{images}{marks}",
        page.width,
        page.height,
        title = escape(title),
        description = escape(description),
    )
}

// %% notebooks/90_plot.ipynb copy
/// Draws each pixel as a square; what lies outside is left out.
fn copy(from: &Image, to: &mut Image, (left, top): (usize, usize), side: usize) {
    let (h, w) = to.shape;
    for y in top..(top + from.shape.0 * side).min(h) {
        for x in left..(left + from.shape.1 * side).min(w) {
            let source = ((y - top) / side * from.shape.1 + (x - left) / side) * 3;
            let target = (y * w + x) * 3;
            to.rgb[target..target + 3].copy_from_slice(&from.rgb[source..source + 3]);
        }
    }
}

// %% notebooks/90_plot.ipynb halve
/// Each pixel of the result is the mean of 2 by 2.
fn halve(fine: &Image) -> Image {
    let (h, w) = (fine.shape.0 / 2, fine.shape.1 / 2);
    let mut rgb = Vec::with_capacity(h * w * 3);
    for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
        for channel in 0..3 {
            let at = |dy, dx| ((2 * y + dy) * 2 * w + 2 * x + dx) * 3 + channel;
            let four = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)].map(|i| u16::from(fine.rgb[i]));
            rgb.push(((four.iter().sum::<u16>() + 2) / 4) as u8);
        }
    }
    Image { shape: (h, w), rgb }
}

// %% notebooks/90_plot.ipynb raster
/// The page with two pixels per CSS pixel.
fn raster(page: &Page) -> Image {
    const FINE: usize = 4;
    let shape = (page.height * FINE, page.width * FINE);
    let mut fine = Image { shape, rgb: vec![255; shape.0 * shape.1 * 3] };
    for mark in &page.marks {
        if let Mark::Image((left, top), zoom, image) = mark {
            copy(image, &mut fine, (left * FINE, top * FINE), zoom * FINE);
        }
    }
    let size = (shape.1 as u32, shape.0 as u32);
    let pen = Pen { unit: FINE as f64, em: EM, baseline: EM / 2.0, joins: false };
    paint(page, &mut BitMapBackend::with_buffer(&mut fine.rgb, size), &pen);
    halve(&fine)
}

// %% notebooks/90_plot.ipynb whole
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Writes a file beside it first, so that nobody ever finds half a picture.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part); // the first error is the one to report
    }
    written
}

// %% notebooks/90_plot.ipynb figure
/// A finished picture: it shows itself at the end of a notebook's cell, and saves itself elsewhere.
#[derive(Clone)]
pub struct Figure {
    /// What is drawn.
    pub page: Page,
    /// What the picture is about.
    pub title: String,
    /// What there is to see, for those who cannot see it.
    pub description: String,
}

impl Figure {
    /// The picture as SVG: lines stay lines and text stays text.
    pub fn svg(&self) -> String {
        svg(&self.page, &self.title, &self.description)
    }

    /// The picture as PNG, with two pixels per CSS pixel.
    pub fn png(&self) -> Vec<u8> {
        encode_png(&raster(&self.page))
    }
}

// %% notebooks/90_plot.ipynb figure-b
impl Figure {
    /// Writes `NAME.png` or `NAME.svg`: the ending decides. An older file is replaced in one step.
    ///
    /// # Errors
    /// For any other ending, and when the file cannot be written; the message names the file.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let bytes = match path.extension().and_then(|ending| ending.to_str()) {
            Some("png") => self.png(),
            Some("svg") => self.svg().into_bytes(),
            _ => {
                let message = format!("{}: a picture's name ends in .png or .svg", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        write_whole(path, &bytes).map_err(named)
    }
}

// %% notebooks/90_plot.ipynb figure-rich
use minai::io::notebook::{Bundle, Rich};

/// An image in HTML, of a media type and in base64.
fn img(width: usize, alt: String, kind: &str, bytes: impl AsRef<[u8]>) -> Bundle {
    let (shown, data) = (escape(&alt), base64(bytes));
    let html = format!("<img width=\"{width}\" alt=\"{shown}\" src=\"data:image/{kind};base64,{data}\">");
    Bundle { text: alt, rich: vec![("text/html", html)] }
}

/// As an image with its description as `alt` text.
impl Rich for Figure {
    fn bundle(&self) -> Bundle {
        let alt = format!("{}. {}", self.title, self.description);
        let few = self.page.marks.len() < 5000;
        match few.then(|| self.svg()).filter(|svg| svg.len() <= 200_000) {
            Some(svg) => img(self.page.width, alt, "svg+xml", svg),
            None => img(self.page.width, alt, "png", self.png()),
        }
    }
}

// %% notebooks/90_plot.ipynb figure-rich-b
impl Figure {
    /// Shows the picture in the notebook; evcxr calls it when a cell ends with a `Figure`.
    pub fn evcxr_display(&self) {
        self.bundle().print_block();
    }
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Page { width, height, .. } = self.page;
        write!(f, "Figure {:?}, {width} by {height}: {}", self.title, self.description)
    }
}

// %% notebooks/90_plot.ipynb scale
/// How an axis spaces its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    #[default]
    Linear,
    /// Equal ratios are equally far apart; only numbers above zero have a place.
    Log,
}

// %% notebooks/90_plot.ipynb axis
/// Numbers from `lo` to `hi`, laid out on the page from `start` to `end`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    scale: Scale,
    lo: f64,
    hi: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn new(scale: Scale, (lo, hi): (f64, f64), (start, end): Point) -> Axis {
        Axis { scale, lo, hi, start, end }
    }

    /// 0 at `lo`, 1 at `hi`.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.lo) / (self.hi - self.lo),
            Scale::Log => (value / self.lo).log10() / (self.hi / self.lo).log10(),
        }
    }
}

// %% notebooks/90_plot.ipynb axis-b
impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.start + self.share(value) * (self.end - self.start)
    }

    /// The number that lies at a share of the axis.
    fn value(&self, share: f64) -> f64 {
        match self.scale {
            Scale::Linear => self.lo + (self.hi - self.lo) * share,
            Scale::Log => self.lo * (self.hi / self.lo).powf(share),
        }
    }
}

// %% notebooks/90_plot.ipynb extent
/// Whether a number has a place on an axis.
fn drawable(value: f64, scale: Scale) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// From the smallest to the largest drawable number, and always something that an axis can show.
fn extent(values: impl IntoIterator<Item = f64>, scale: Scale) -> (f64, f64) {
    const FAR: f64 = 1e300; // differences of numbers beyond it would be infinite
    let values = values.into_iter().filter(|&v| drawable(v, scale));
    let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.map(|v| v.clamp(-FAR, FAR)) {
        (lo, hi) = (lo.min(value), hi.max(value));
    }
    let size = lo.abs().max(hi.abs());
    match scale {
        Scale::Linear if lo > hi => (0.0, 1.0),
        Scale::Linear if size < 1e-290 => (-1.0, 1.0),
        Scale::Linear if hi - lo <= size * 1e-9 => (lo - size * 0.1, hi + size * 0.1),
        Scale::Log if lo > hi => (1.0, 10.0),
        Scale::Log if hi / lo < 1.01 => (lo / 2.0, hi * 2.0),
        _ => (lo, hi),
    }
}

// %% notebooks/90_plot.ipynb pad
/// The range with a margin of `share` of it on both sides.
fn pad((lo, hi): (f64, f64), scale: Scale, share: f64) -> (f64, f64) {
    let axis = Axis::new(scale, (lo, hi), (0.0, 1.0));
    (axis.value(-share), axis.value(1.0 + share))
}

// %% notebooks/90_plot.ipynb plain
/// Ten to the `n`th, its exponent set high.
fn power_of_ten(n: i32) -> String {
    const HIGH: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let high = |c: char| c.to_digit(10).map_or('⁻', |digit| HIGH[digit as usize]);
    format!("10{}", n.to_string().chars().map(high).collect::<String>())
}

/// With so many decimals, a true minus sign, and commas between thousands from 10,000 on.
fn plain(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let whole = text.find('.').unwrap_or(text.len());
    let negative = value < 0.0 && text.contains(|c| ('1'..='9').contains(&c));
    let mut out = String::from(if negative { "−" } else { "" });
    for (i, c) in text.chars().enumerate() {
        if whole > 4 && (1..whole).contains(&i) && (whole - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

// %% notebooks/90_plot.ipynb number
/// A number with at most four digits; whole numbers below a million in full.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.3e}"); // such as 1.235e3: the exponent is that after rounding
    let (digits, exponent) = scientific.split_once('e').expect("it has an e");
    let exponent = exponent.parse().expect("a whole number");
    let short = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    match exponent {
        ..6 if value.fract() == 0.0 => plain(value, 0),
        -4..3 => short(plain(value, (3 - exponent) as usize)),
        3..6 => plain(value, 0),
        _ => {
            let digits = short(plain(digits.parse().expect("a number"), 3));
            format!("{digits}×{}", power_of_ten(exponent))
        }
    }
}

// %% notebooks/90_plot.ipynb multiples
type Tick = (f64, String);

/// The multiples of `digit` · 10^`power` from `lo` to `hi`.
fn multiples(lo: f64, hi: f64, digit: f64, power: i32) -> Vec<f64> {
    // 3 · 0.1 is not 0.3, but 3 / 10 is: below 1, divide.
    let times = |i: f64| match power {
        ..0 => i * digit / 10f64.powi(-power),
        0.. => i * digit * 10f64.powi(power),
    };
    let step = times(1.0);
    let (first, last) = ((lo / step - 1e-9).ceil(), (hi / step + 1e-9).floor());
    let count = (last - first).max(-1.0) as usize + 1;
    (0..count).map(|i| times(first + i as f64)).collect()
}

// %% notebooks/90_plot.ipynb labelled
/// Multiples of a step with that power of ten, labelled alike.
fn labelled(values: Vec<f64>, power: i32) -> Vec<Tick> {
    let largest = values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let exponent = if largest > 0.0 { (largest.log10() + 1e-9).floor() as i32 } else { 0 };
    let label = |v: f64| match exponent {
        _ if v == 0.0 => "0".into(),
        -4..6 => plain(v, (-power).max(0) as usize),
        _ => {
            let digits = plain(v / 10f64.powi(exponent), (exponent - power).max(0) as usize);
            format!("{digits}×{}", power_of_ten(exponent))
        }
    };
    values.into_iter().map(|v| (v, label(v))).collect()
}

// %% notebooks/90_plot.ipynb linear-ticks
/// The finest step whose labels fit.
fn linear_ticks(lo: f64, hi: f64, fits: &dyn Fn(&[Tick]) -> bool) -> Vec<Tick> {
    let finest = ((hi - lo) / 20.0).log10().floor() as i32;
    let steps = (finest..).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)));
    let mut choices = steps.map(|(digit, power)| labelled(multiples(lo, hi, digit, power), power));
    choices.find(|ticks| ticks.len() <= 2 || fits(ticks)).expect("a long step has few multiples")
}

// %% notebooks/90_plot.ipynb log-ticks
fn log_ticks(lo: f64, hi: f64, fits: &dyn Fn(&[Tick]) -> bool) -> Vec<Tick> {
    let powers = lo.log10().floor() as i32..=hi.log10().ceil() as i32;
    let in_full = lo > 9e-5 && hi < 1.1e5;
    let label = |digit: f64, power: i32| match digit {
        _ if in_full => plain(digit * 10f64.powi(power), (-power).max(0) as usize),
        1.0 => power_of_ten(power),
        _ => format!("{digit}×{}", power_of_ten(power)),
    };
    let choice = |digits: &[f64], every: i32| {
        let powers = powers.clone().filter(|power| power % every == 0);
        let all = powers.flat_map(|power| digits.iter().map(move |&digit| (digit, power)));
        let ticks = all.map(|(digit, power)| (digit * 10f64.powi(power), label(digit, power)));
        ticks.filter(|(v, _)| (lo * 0.999..=hi * 1.001).contains(v)).collect::<Vec<_>>()
    };
    let finest = choice(&[1.0, 2.0, 5.0], 1);
    let coarser = [1, 2, 5, 10, 20, 50, 100, 200].into_iter().map(|every| choice(&[1.0], every));
    let mut choices = [finest].into_iter().chain(coarser);
    choices.find(|ticks| ticks.len() <= 2 || fits(ticks)).expect("f64 has few powers of ten")
}

// %% notebooks/90_plot.ipynb ticks
/// Round numbers from `lo` to `hi` with their labels: the finest choice that fits.
fn ticks(axis: &Axis, fits: &dyn Fn(&[Tick]) -> bool) -> Vec<Tick> {
    match axis.scale {
        Scale::Log if axis.hi / axis.lo > 8.0 => log_ticks(axis.lo, axis.hi, fits),
        _ => linear_ticks(axis.lo, axis.hi, fits),
    }
}

// %% notebooks/90_plot.ipynb side-by-side
/// Whether labels below an axis leave room between them.
fn side_by_side(axis: &Axis, ticks: &[Tick]) -> bool {
    let half = |tick: &Tick| text_width(&tick.1, SMALL) / 2.0;
    let room = |t: &[Tick]| axis.at(t[1].0) - axis.at(t[0].0) - half(&t[0]) - half(&t[1]);
    ticks.windows(2).all(|pair| room(pair) >= 20.0)
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
    /// The ends of the horizontal axis; `None`: it holds all the data.
    pub x_range: Option<(f64, f64)>,
    /// The ends of the vertical axis; `None`: it holds all the data.
    pub y_range: Option<(f64, f64)>,
    /// Width and height of the picture in CSS pixels.
    pub size: (usize, usize),
}

// %% notebooks/90_plot.ipynb axes-b
impl Default for Axes {
    fn default() -> Axes {
        let (x_scale, y_scale) = (Scale::Linear, Scale::Linear);
        let (x, y, x_range, y_range) = (String::new(), String::new(), None, None);
        Axes { x, y, x_scale, y_scale, x_range, y_range, size: (640, 400) }
    }
}

// %% notebooks/90_plot.ipynb axes-named
/// Axes with these names, and all else as [`Axes::default`] has it.
pub fn axes(x: impl Into<String>, y: impl Into<String>) -> Axes {
    Axes { x: x.into(), y: y.into(), ..Axes::default() }
}

// %% notebooks/90_plot.ipynb chosen
/// The range that was asked for, if it can be drawn; else the one that suits the data.
#[track_caller]
fn chosen(asked: Option<(f64, f64)>, scale: Scale, suits: (f64, f64)) -> (f64, f64) {
    let Some((lo, hi)) = asked else { return suits };
    let runs = drawable(lo, scale) && drawable(hi, scale) && lo < hi;
    assert!(runs, "plot: a range from {lo} to {hi} cannot be drawn on a {scale:?} scale");
    (lo, hi)
}

// %% notebooks/90_plot.ipynb heading
/// Writes the title, in several lines if it is long, and returns the last baseline.
fn heading(page: &mut Page, title: &str) -> f64 {
    let room = page.width as f64 - 2.0 * MARGIN;
    let (mut y, mut line) = (8.0, String::new());
    for word in title.split_whitespace() {
        let longer = format!("{line} {word}");
        if !line.is_empty() && text_width(&longer, TITLE) > room {
            y += 20.0;
            page.text((MARGIN, y), Align::Left, TITLE, INK, line.trim_start());
            line = word.into();
        } else {
            line = longer;
        }
    }
    if !line.is_empty() {
        y += 20.0;
        page.text((MARGIN, y), Align::Left, TITLE, INK, line.trim_start());
    }
    y
}

// %% notebooks/90_plot.ipynb frame
/// A chart before its data are drawn.
struct Frame {
    page: Page,
    x: Axis,
    y: Axis, // from the lower end, where the page's y is larger, to the upper
}

// %% notebooks/90_plot.ipynb frame-b
/// A frame for data from `x.0` to `x.1` and from `y.0` to `y.1`; `right` is the margin for a key.
fn frame(title: &str, axes: &Axes, x: (f64, f64), y: (f64, f64), right: f64) -> Frame {
    let (width, height) = (axes.size.0 as f64, axes.size.1 as f64);
    let mut page = Page::new(axes.size.0, axes.size.1);
    let mut top = heading(&mut page, title);
    if !axes.y.is_empty() {
        top += 22.0;
        page.text((MARGIN, top), Align::Left, SMALL, GREY, &axes.y);
    }
    let bottom = height - if axes.x.is_empty() { 32.0 } else { 52.0 };
    let y = Axis::new(axes.y_scale, y, (bottom, top + 16.0));
    let apart = |t: &[Tick]| y.at(t[0].0) - y.at(t[1].0) >= 28.0;
    let ticks = ticks(&y, &|ticks| ticks.windows(2).all(apart));
    let widest = ticks.iter().map(|(_, label)| text_width(label, SMALL)).fold(24.0, f64::max);
    let x = Axis::new(axes.x_scale, x, (MARGIN + widest + 8.0, width - right.max(28.0)));
    for (value, label) in ticks {
        let (at, color) = (y.at(value), if value == 0.0 { RULE } else { GRID });
        page.line(&[(x.start, at), (x.end, at)], 1.0, color);
        page.text((x.start - 8.0, at + 4.5), Align::Right, SMALL, GREY, &label);
    }
    page.line(&[(x.start, bottom), (x.end, bottom)], 1.0, RULE);
    let middle = (x.start + x.end) / 2.0;
    page.text((middle, height - 12.0), Align::Middle, SMALL, GREY, &axes.x);
    Frame { page, x, y }
}

// %% notebooks/90_plot.ipynb number-x
/// Numbers below the horizontal axis, as many as have room.
fn number_x(frame: &mut Frame) {
    let (x, bottom) = (frame.x, frame.y.start);
    for (value, label) in ticks(&x, &|ticks| side_by_side(&x, ticks)) {
        let at = x.at(value);
        frame.page.line(&[(at, bottom), (at, bottom + 5.0)], 1.0, RULE);
        frame.page.text((at, bottom + 19.0), Align::Middle, SMALL, GREY, &label);
    }
}

// %% notebooks/90_plot.ipynb numbers
/// A number that can be drawn: every primitive number, and references to them.
pub trait Number: Copy {
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
}

impl<N: Number> Number for &N {
    fn to_f64(self) -> f64 {
        (*self).to_f64()
    }
}

// evcxr runs a macro call once, like a statement, unless it stands inside an item: hence the module.
mod numbers {
    macro_rules! numbers {
        ($($number:ty)*) => {
            $(impl super::Number for $number {
                fn to_f64(self) -> f64 {
                    self as f64
                }
            })*
        };
    }
    numbers!(f32 f64 i8 i16 i32 i64 isize u8 u16 u32 u64 usize);
}

// %% notebooks/90_plot.ipynb numbers-b
fn f64s(values: impl IntoIterator<Item: Number>) -> Vec<f64> {
    values.into_iter().map(Number::to_f64).collect()
}

// %% notebooks/90_plot.ipynb series
#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Line,
    Dots,
}

/// Points to be drawn by [`plot`]: made by [`line()`], [`scatter`] or [`curve`].
#[derive(Clone, Debug)]
pub struct Series {
    label: String,
    points: Vec<(f64, f64)>,
    style: Style,
}

#[track_caller]
fn pair(x: impl IntoIterator<Item: Number>, y: impl IntoIterator<Item: Number>) -> Vec<(f64, f64)> {
    let (mut xs, y) = (x.into_iter(), f64s(y));
    let endless = xs.size_hint().0 == usize::MAX; // such as `0..`
    let x = f64s(xs.by_ref().take(y.len()));
    let n = x.len() + if endless { 0 } else { xs.count() };
    assert!(n == y.len(), "line or scatter: {n} x values, but {} y values", y.len());
    x.into_iter().zip(y).collect()
}

// %% notebooks/90_plot.ipynb line
use std::ops::RangeInclusive;

/// A line through points. If the points are only to be counted, x is `0..`.
/// The label names it beside the chart; an empty one does not.
///
/// # Panics
/// When there are not as many x values as y values.
#[track_caller]
pub fn line(
    label: impl Into<String>,
    x: impl IntoIterator<Item: Number>,
    y: impl IntoIterator<Item: Number>,
) -> Series {
    Series { label: label.into(), points: pair(x, y), style: Style::Line }
}

// %% notebooks/90_plot.ipynb scatter
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
    Series { label: label.into(), points: pair(x, y), style: Style::Dots }
}

// %% notebooks/90_plot.ipynb curve
/// The graph of a function, computed at 401 places.
pub fn curve(label: impl Into<String>, x: RangeInclusive<f64>, f: impl Fn(f64) -> f64) -> Series {
    let axis = Axis::new(Scale::Linear, x.into_inner(), (0.0, 1.0));
    let x = (0..=400).map(|i| axis.value(f64::from(i) / 400.0));
    Series { label: label.into(), points: x.map(|x| (x, f(x))).collect(), style: Style::Line }
}

// %% notebooks/90_plot.ipynb clip
/// The part of a segment that lies in the frame (Liang and Barsky 1984).
fn clip(a: Point, b: Point, frame: &Frame) -> Option<(Point, Point)> {
    let (x, y, dx, dy) = (&frame.x, &frame.y, b.0 - a.0, b.1 - a.1);
    let (mut from, mut to): (f64, f64) = (0.0, 1.0);
    let left_and_right = [(-dx, a.0 - x.start), (dx, x.end - a.0)];
    let above_and_below = [(-dy, a.1 - y.end), (dy, y.start - a.1)];
    for (step, room) in left_and_right.into_iter().chain(above_and_below) {
        match step {
            0.0 if room < -1e-6 => return None, // a computed place may miss the edge by a hair
            0.0 => {}
            ..0.0 => from = from.max(room / step),
            _ => to = to.min(room / step),
        }
    }
    let at = |t: f64| {
        if t == 1.0 { b } else { (a.0 + t * dx, a.1 + t * dy) }
    };
    (from <= to).then(|| (at(from), at(to)))
}

// %% notebooks/90_plot.ipynb pieces
/// A line on the page: cut where a value is missing, and where it leaves the frame.
fn pieces(points: &[(f64, f64)], frame: &Frame) -> Vec<Vec<Point>> {
    let (x, y) = (frame.x, frame.y);
    let place =
        |&(a, b): &(f64, f64)| (drawable(a, x.scale) && drawable(b, y.scale)).then(|| (x.at(a), y.at(b)));
    let places: Vec<Option<Point>> = points.iter().map(place).collect();
    let mut pieces: Vec<Vec<Point>> = vec![];
    for (i, at) in places.iter().enumerate() {
        let before = if i > 0 { places[i - 1] } else { None };
        let after = places.get(i + 1).copied().flatten();
        // A point with a gap on both sides is a segment to itself.
        let from = before.or(at.filter(|_| after.is_none()));
        let Some((a, b)) = from.zip(*at).and_then(|(a, b)| clip(a, b, frame)) else {
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if before.is_some() && piece.last() == Some(&a) => piece.push(b),
            _ => pieces.push(vec![a, b]),
        }
    }
    pieces
}

// %% notebooks/90_plot.ipynb dashes
#[rustfmt::skip]
const COLORS: [Rgb; 6] = [
    [0, 80, 150], [225, 110, 0], [20, 127, 65], [110, 0, 85], [65, 170, 205], [50, 50, 45],
];
/// Lengths of stroke and gap in turn. Round ends make a dot of a stroke without length.
const DASHES: [&[f64]; 5] = [&[], &[9.0, 6.0], &[0.0, 5.0], &[10.0, 5.0, 0.0, 5.0], &[18.0, 5.0]];

fn length(points: &[Point]) -> f64 {
    points.windows(2).map(|p| (p[1].0 - p[0].0).hypot(p[1].1 - p[0].1)).sum()
}

// %% notebooks/90_plot.ipynb dashes-b
/// The strokes of a dashed line.
fn dashes(points: &[Point], pattern: &[f64]) -> Vec<Vec<Point>> {
    let (mut strokes, mut turn, mut left) = (vec![vec![points[0]]], 0, pattern[0]);
    for ends in points.windows(2) {
        let (mut at, mut rest) = (ends[0], length(ends));
        while rest > left {
            let share = left / rest;
            at = (at.0 + (ends[1].0 - at.0) * share, at.1 + (ends[1].1 - at.1) * share);
            match turn % 2 {
                0 => strokes.last_mut().expect("never empty").push(at), // pen up
                _ => strokes.push(vec![at]),                            // pen down
            }
            turn += 1;
            (rest, left) = (rest - left, pattern[turn % pattern.len()]);
        }
        left -= rest;
        if turn % 2 == 0 {
            strokes.last_mut().expect("never empty").push(ends[1]);
        }
    }
    strokes
}

// %% notebooks/90_plot.ipynb thin
/// At most four points for each half pixel that a line passes: the rest would fall on the same spots.
fn thin(points: &[Point]) -> Vec<Point> {
    let column = |p: &Point| (2.0 * p.0).floor();
    let mut kept = vec![];
    for run in points.chunk_by(|a, b| column(a) == column(b)) {
        let height = |i: &usize, j: &usize| run[*i].1.total_cmp(&run[*j].1);
        let highest = (0..run.len()).min_by(height).expect("runs are not empty"); // y grows downwards
        let lowest = (0..run.len()).max_by(height).expect("runs are not empty");
        let four = [0, highest.min(lowest), highest.max(lowest), run.len() - 1];
        let repeats = |i: usize| i > 0 && four[i] == four[i - 1];
        kept.extend((0..4).filter(|&i| !repeats(i)).map(|i| run[four[i]]));
    }
    kept
}

// %% notebooks/90_plot.ipynb draw-line
/// Draws a piece of the series number `which` in a chart as wide as `span`.
fn draw_line(page: &mut Page, piece: &[Point], which: usize, span: f64) {
    let (color, pattern) = (COLORS[which % COLORS.len()], DASHES[which % DASHES.len()]);
    match piece {
        [a, b] if a == b => page.dot(*a, 2.0, color),
        _ if length(piece) > 3.0 * span => page.line(&thin(piece), 1.2, color),
        _ if pattern.is_empty() => page.line(&thin(piece), 2.0, color),
        _ => dashes(&thin(piece), pattern).iter().for_each(|stroke| page.line(stroke, 2.0, color)),
    }
}

// %% notebooks/90_plot.ipynb draw-dot
/// A point of a cloud: a disc, triangle, square or cross, so that clouds differ in grey as well.
fn draw_dot(page: &mut Page, (x, y): Point, which: usize, r: f64) {
    let color = COLORS[which % COLORS.len()];
    let corners = |corners: &[Point]| corners.iter().map(|c| (x + c.0 * r, y + c.1 * r)).collect::<Vec<_>>();
    match which % 4 {
        0 => page.dot((x, y), r, color),
        1 => page.area(&corners(&[(0.0, -1.3), (1.2, 0.9), (-1.2, 0.9)]), color),
        2 => page.area(&corners(&[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]), color),
        _ => {
            page.line(&corners(&[(-1.0, -1.0), (1.0, 1.0)]), 0.6 * r, color);
            page.line(&corners(&[(-1.0, 1.0), (1.0, -1.0)]), 0.6 * r, color);
        }
    }
}

// %% notebooks/90_plot.ipynb spread
/// Moves sorted heights at least `gap` apart, and not below `lowest` (y grows downwards).
fn spread(heights: &mut [f64], gap: f64, lowest: f64) {
    for i in 1..heights.len() {
        heights[i] = heights[i].max(heights[i - 1] + gap);
    }
    let mut limit = lowest;
    for height in heights.iter_mut().rev() {
        *height = height.min(limit);
        limit = *height - gap;
    }
}

// %% notebooks/90_plot.ipynb fit
/// The longest name that a key shows whole, in CSS pixels.
const KEY: f64 = 150.0;

/// Shortens a text until it fits.
fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.into();
    }
    let mut kept = text.to_owned();
    while kept.pop().is_some() && text_width(&format!("{kept}…"), size) > width {}
    format!("{}…", kept.trim_end())
}

// %% notebooks/90_plot.ipynb key
/// Names the series beside the chart, as near as can be to where they end; clouds come at the top.
fn draw_key(frame: &mut Frame, series: &[Series]) {
    const GAP: f64 = 18.0;
    let end = |one: &Series| match one.style {
        Style::Dots => frame.y.end,
        Style::Line => {
            pieces(&one.points, frame).last().map_or(frame.y.start, |piece| piece[piece.len() - 1].1)
        }
    };
    let named = series.iter().enumerate().filter(|(_, one)| !one.label.is_empty());
    let mut entries: Vec<_> = named.map(|(which, one)| (end(one), which)).collect();
    entries.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut heights: Vec<f64> = entries.iter().map(|entry| entry.0).collect();
    spread(&mut heights, GAP, frame.y.start);
    let left = frame.x.end + 12.0;
    for ((_, which), y) in entries.into_iter().zip(heights) {
        match series[which].style {
            Style::Line => draw_line(&mut frame.page, &[(left, y), (left + 24.0, y)], which, 24.0),
            Style::Dots => draw_dot(&mut frame.page, (left + 12.0, y), which, 4.0),
        }
        let label = fit(&series[which].label, SMALL, KEY);
        frame.page.text((left + 32.0, y + 4.5), Align::Left, SMALL, INK, &label);
    }
}

// %% notebooks/90_plot.ipynb ranges
/// From where to where the axes run.
#[track_caller]
fn ranges(axes: &Axes, series: &[Series]) -> ((f64, f64), (f64, f64)) {
    let (x, y) = (axes.x_scale, axes.y_scale);
    let points = || series.iter().flat_map(|one| &one.points);
    let seen = || points().filter(|p| drawable(p.0, x) && drawable(p.1, y));
    let margin = if series.iter().any(|one| one.style == Style::Dots) { 0.03 } else { 0.0 };
    let across = pad(extent(seen().map(|p| p.0), x), x, margin);
    let (lo, hi) = extent(seen().map(|p| p.1), y);
    let (below, above) = pad((lo, hi), y, 0.05);
    let upright = match y {
        Scale::Linear if lo >= 0.0 && lo < hi / 3.0 => (0.0, above),
        Scale::Linear if hi <= 0.0 && hi > lo / 3.0 => (below, 0.0),
        _ => (below, above),
    };
    (chosen(axes.x_range, x, across), chosen(axes.y_range, y, upright))
}

// %% notebooks/90_plot.ipynb draw-series
/// Draws a series and returns in how many pieces.
fn draw_series(frame: &mut Frame, one: &Series, which: usize) -> usize {
    let pieces = match one.style {
        Style::Line => pieces(&one.points, frame),
        Style::Dots => one.points.iter().flat_map(|&point| pieces(&[point], frame)).collect(),
    };
    let radius = [3.5, 2.5, 1.5][usize::from(pieces.len() > 200) + usize::from(pieces.len() > 2000)];
    for piece in &pieces {
        match one.style {
            Style::Line => draw_line(&mut frame.page, piece, which, frame.x.end - frame.x.start),
            Style::Dots => draw_dot(&mut frame.page, piece[0], which, radius),
        }
    }
    pieces.len()
}

fn nothing(page: &mut Page) {
    let middle = (page.width as f64 / 2.0, page.height as f64 / 2.0);
    page.text(middle, Align::Middle, SMALL, GREY, "nothing to draw");
}

// %% notebooks/90_plot.ipynb describe
/// A series in words.
fn describe(one: &Series) -> String {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let finite: Vec<_> = one.points.iter().filter(finite).collect();
    let name = match one.style {
        Style::Line => format!("line {}", one.label),
        Style::Dots => format!("{} points {}", number(finite.len() as f64), one.label),
    };
    let name = name.trim_end();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else {
        return format!("{name} without values");
    };
    let heights = finite.iter().map(|p| p.1);
    let (lo, hi) = heights.fold((f64::MAX, f64::MIN), |(lo, hi), y| (lo.min(y), hi.max(y)));
    let [x0, y0, x1, y1, lo, hi] = [first.0, first.1, last.0, last.1, lo, hi].map(number);
    match one.style {
        Style::Line => format!("{name} from ({x0}, {y0}) to ({x1}, {y1}), between {lo} and {hi}"),
        Style::Dots => format!("{name} between {lo} and {hi}"),
    }
}

// %% notebooks/90_plot.ipynb describe-chart
fn describe_chart(axes: &Axes, series: &[Series]) -> String {
    let name = |name: &str, or: &str| if name.is_empty() { or } else { name }.to_owned();
    let mut words: Vec<String> = series.iter().map(describe).collect();
    if words.is_empty() {
        words.push("nothing".into());
    }
    let (x, y) = (name(&axes.x, "x"), name(&axes.y, "y"));
    format!("Chart of {y} against {x}: {}.", words.join("; "))
}

// %% notebooks/90_plot.ipynb chart
#[track_caller]
fn chart(title: String, axes: Axes, series: Vec<Series>) -> Figure {
    let (x, y) = ranges(&axes, &series);
    let labels = series.iter().filter(|one| !one.label.is_empty());
    let widths = labels.map(|one| text_width(&one.label, SMALL).min(KEY));
    let key = widths.reduce(f64::max).map_or(0.0, |width| 12.0 + 32.0 + width + MARGIN);
    let mut frame = frame(&title, &axes, x, y, key);
    number_x(&mut frame);
    let drawn: usize = series.iter().enumerate().map(|(i, one)| draw_series(&mut frame, one, i)).sum();
    if drawn == 0 {
        nothing(&mut frame.page);
    }
    draw_key(&mut frame, &series);
    let description = describe_chart(&axes, &series);
    Figure { page: frame.page, title, description }
}

// %% notebooks/90_plot.ipynb plot
/// A chart of lines, clouds of points and functions.
///
/// Values that cannot be drawn leave a gap. Lines are named beside the chart, near their ends.
///
/// # Panics
/// When a range in `axes` runs backwards, or holds a number that its scale cannot show.
#[track_caller]
pub fn plot(title: impl Into<String>, axes: Axes, series: impl IntoIterator<Item = Series>) -> Figure {
    chart(title.into(), axes, series.into_iter().collect())
}

// %% notebooks/90_plot.ipynb count
/// How many values lie in each interval of the axis.
fn count(values: &[f64], axis: &Axis, bins: usize) -> Vec<usize> {
    let mut counts = vec![0; bins];
    let inside = |v: &&f64| (axis.lo..=axis.hi).contains(*v);
    for &value in values.iter().filter(inside) {
        counts[(axis.at(value) as usize).min(bins - 1)] += 1;
    }
    counts
}

// %% notebooks/90_plot.ipynb draw-bar
/// A bar from zero, or from the foot of the chart, to `value`; cut at the frame.
fn draw_bar(frame: &mut Frame, (left, right): (f64, f64), value: f64) {
    let cut = |value: f64| frame.y.at(value.clamp(frame.y.lo, frame.y.hi));
    let (foot, head) = (cut(0.0), cut(value));
    frame.page.area(&[(left, foot), (right, foot), (right, head), (left, head)], COLORS[0]);
}

// %% notebooks/90_plot.ipynb describe-counts
fn describe_counts(counts: &[usize], axis: &Axis, total: usize) -> String {
    let shown: usize = counts.iter().sum();
    let fullest = (0..counts.len()).rev().max_by_key(|&i| counts[i]).unwrap_or(0);
    let [lo, hi] = [axis.lo, axis.hi].map(number);
    let [from, to] = [fullest, fullest + 1].map(|i| number(axis.value(i as f64 / counts.len() as f64)));
    let left_out = match total - shown {
        0 => String::new(),
        n => format!(" Not shown: {n} values without a place on the axis."),
    };
    format!(
        "Histogram of {} values from {lo} to {hi} in {} intervals; \
         the fullest, from {from} to {to}, holds {}.{left_out}",
        number(shown as f64),
        counts.len(),
        number(counts[fullest] as f64)
    )
}

// %% notebooks/90_plot.ipynb histogram
#[track_caller]
fn histogram(title: String, axes: Axes, values: &[f64], bins: usize) -> Figure {
    assert!(bins > 0, "hist: a histogram needs at least one bin");
    let range = chosen(axes.x_range, axes.x_scale, extent(values.iter().copied(), axes.x_scale));
    let axis = Axis::new(axes.x_scale, range, (0.0, bins as f64));
    let counts = count(values, &axis, bins);
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let suits = if axes.y_scale == Scale::Log { (0.5, most * 1.2) } else { (0.0, most * 1.05) };
    let mut frame = frame(&title, &axes, range, chosen(axes.y_range, axes.y_scale, suits), 0.0);
    number_x(&mut frame);
    let width = (frame.x.end - frame.x.start) / bins as f64;
    let gap = if width > 4.0 { 1.0 } else { 0.0 };
    for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let left = frame.x.start + i as f64 * width;
        draw_bar(&mut frame, (left, left + width - gap), *count as f64);
    }
    if counts.iter().all(|&count| count == 0) {
        nothing(&mut frame.page);
    }
    let description = describe_counts(&counts, &axis, values.len());
    Figure { page: frame.page, title, description }
}

// %% notebooks/90_plot.ipynb hist
/// A histogram: how many of the values lie in each of `bins` equal intervals between the smallest
/// and the largest, or over `x_range`. On a logarithmic x axis the intervals have equal ratios.
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
    histogram(title.into(), axes, &f64s(values), bins)
}

// %% notebooks/90_plot.ipynb bar-range
/// Zero, all values, and some room for the numbers at the bars' ends.
fn bar_range(bars: &[(String, f64)], scale: Scale) -> (f64, f64) {
    let values = bars.iter().map(|bar| bar.1);
    if scale == Scale::Log {
        return pad(extent(values, scale), scale, 0.1);
    }
    let values = values.filter(|v| v.is_finite()).chain([0.0]).map(|v| v.clamp(-1e300, 1e300));
    let (lo, hi) = values.fold((0.0, 0.0), |(lo, hi): (f64, f64), v| (lo.min(v), hi.max(v)));
    let room = if lo < hi { 0.09 * (hi - lo) } else { 1.0 };
    (if lo < 0.0 { lo - room } else { 0.0 }, if hi > 0.0 || lo == 0.0 { hi + room } else { 0.0 })
}

// %% notebooks/90_plot.ipynb standing
fn standing_bars(title: &str, axes: &Axes, bars: &[(String, f64)], range: (f64, f64)) -> Page {
    let mut frame = frame(title, axes, (0.0, bars.len().max(1) as f64), range, 0.0);
    let slot = frame.x.at(1.0) - frame.x.at(0.0);
    for (i, (name, value)) in bars.iter().enumerate() {
        let middle = frame.x.at(i as f64 + 0.5);
        frame.page.text((middle, frame.y.start + 19.0), Align::Middle, SMALL, GREY, name);
        if !drawable(*value, axes.y_scale) {
            continue;
        }
        draw_bar(&mut frame, (middle - 0.36 * slot, middle + 0.36 * slot), *value);
        let (text, width) = (number(*value), text_width(&number(*value), SMALL) / 2.0 + 2.0);
        if 2.0 * width > slot {
            continue;
        }
        let head = frame.y.at(value.clamp(frame.y.lo, frame.y.hi));
        let foot = if *value < 0.0 { head + 15.0 } else { head - 5.0 };
        // White behind it, so that no grid line crosses the number.
        let (left, right, above, below) = (middle - width, middle + width, foot - 11.0, foot + 2.0);
        let white = [(left, above), (right, above), (right, below), (left, below)];
        frame.page.area(&white, [255; 3]);
        frame.page.text((middle, foot), Align::Middle, SMALL, INK, &text);
    }
    frame.page
}

// %% notebooks/90_plot.ipynb lying
fn lying_bars(title: &str, axes: &Axes, bars: &[(String, f64)], range: (f64, f64)) -> Page {
    const ROW: f64 = 26.0;
    let mut page = Page::new(axes.size.0, 0);
    let top = heading(&mut page, title) + 14.0;
    let bottom = top + ROW * bars.len() as f64;
    page.height = bottom as usize + 52;
    let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(24.0, f64::max);
    let names = widest(&mut bars.iter().map(|bar| text_width(&bar.0, SMALL))).min(260.0);
    let numbers = widest(&mut bars.iter().map(|bar| text_width(&number(bar.1), SMALL)));
    let ends = (MARGIN + names + 8.0, page.width as f64 - MARGIN - numbers);
    let x = Axis::new(axes.y_scale, range, ends);
    let foot = x.at(0.0_f64.clamp(x.lo, x.hi));
    for (i, (name, value)) in bars.iter().enumerate() {
        let middle = top + ROW * (i as f64 + 0.5);
        let name = fit(name, SMALL, names);
        page.text((x.start - 8.0, middle + 4.5), Align::Right, SMALL, INK, &name);
        let place = drawable(*value, axes.y_scale).then(|| x.at(value.clamp(x.lo, x.hi)));
        let Some(head) = place else { continue };
        let (above, below) = (middle - 0.36 * ROW, middle + 0.36 * ROW);
        page.area(&[(foot, above), (head, above), (head, below), (foot, below)], COLORS[0]);
        let beside = (head.max(foot) + 6.0, middle + 4.5);
        page.text(beside, Align::Left, SMALL, INK, &number(*value));
    }
    page.line(&[(foot, top), (foot, bottom)], 1.0, RULE);
    let label = ((x.start + x.end) / 2.0, bottom + 40.0);
    page.text(label, Align::Middle, SMALL, GREY, &axes.y);
    let mut frame = Frame { page, x, y: Axis::new(Scale::Linear, (0.0, 1.0), (bottom, top)) };
    number_x(&mut frame);
    frame.page
}

// %% notebooks/90_plot.ipynb bar-chart
#[track_caller]
fn bar_chart(title: String, axes: Axes, bars: Vec<(String, f64)>) -> Figure {
    let range = chosen(axes.y_range, axes.y_scale, bar_range(&bars, axes.y_scale));
    let slot = (axes.size.0 as f64 - 80.0) / bars.len() as f64;
    let fits = bars.iter().all(|(name, _)| text_width(name, SMALL) <= slot - 8.0);
    let draw = if fits { standing_bars } else { lying_bars };
    let mut page = draw(&title, &axes, &bars, range);
    if bars.is_empty() {
        nothing(&mut page);
    }
    let words: Vec<_> = bars.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
    let what: &str = if axes.y.is_empty() { "values" } else { &axes.y };
    Figure { page, title, description: format!("Bars of {what}: {}.", words.join(", ")) }
}

// %% notebooks/90_plot.ipynb bar
use std::fmt::Display;

/// A bar for each pair of name and value, and the value beside it. Where the names do not fit
/// below standing bars, the bars lie.
#[track_caller]
pub fn bar(
    title: impl Into<String>,
    axes: Axes,
    bars: impl IntoIterator<Item = (impl Display, impl Number)>,
) -> Figure {
    let bars = bars.into_iter().map(|(name, value)| (name.to_string(), value.to_f64()));
    bar_chart(title.into(), axes, bars.collect())
}

// %% notebooks/90_plot.ipynb colors
/// How numbers become colours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Colors {
    /// From black to white.
    #[default]
    Grey,
    /// From dark violet over green to yellow: more is lighter.
    Viridis,
    /// Blue below zero, white at zero, red above. In grey, both signs look alike.
    BlueRed,
    /// Three numbers to a pixel: (h, w, 3), by default from 0 to 1.
    Rgb,
    /// A plane for red, for green and for blue: (3, h, w), by default from 0 to 1.
    RgbPlanes,
}

// %% notebooks/90_plot.ipynb colors-c
#[rustfmt::skip]
const VIRIDIS: [Rgb; 9] = [
    [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140],
    [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
];
#[rustfmt::skip]
const BLUE_RED: [Rgb; 5] = [
    [20, 60, 130], [110, 165, 215], [247, 247, 247], [230, 130, 95], [140, 20, 30],
];

// %% notebooks/90_plot.ipynb colors-b
impl Colors {
    /// How many numbers make one pixel.
    fn channels(self) -> usize {
        if matches!(self, Colors::Rgb | Colors::RgbPlanes) { 3 } else { 1 }
    }

    /// The stops of the map, from the smallest number to the largest.
    fn stops(self) -> &'static [Rgb] {
        match self {
            Colors::Viridis => &VIRIDIS,
            Colors::BlueRed => &BLUE_RED,
            _ => &[[0; 3], [255; 3]],
        }
    }
}

// %% notebooks/90_plot.ipynb mix
/// The colour at a share from 0 to 1 of the way through the stops.
fn mix(stops: &[Rgb], share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let (a, b, t) = (stops[place as usize], stops[place.ceil() as usize], place.fract());
    std::array::from_fn(|c| (f64::from(a[c]) * (1.0 - t) + f64::from(b[c]) * t).round() as u8)
}

// %% notebooks/90_plot.ipynb look
/// What an image looks like.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// How numbers become colours.
    pub colors: Colors,
    /// The numbers of the map's first and last colour; `None`: the smallest and the largest.
    pub range: Option<(f64, f64)>,
    /// The side of a pixel in CSS pixels; `None`: what fits.
    pub zoom: Option<usize>,
    /// How many images of a grid stand in a row; `None`: such that the rows come out even.
    pub columns: Option<usize>,
}

// %% notebooks/90_plot.ipynb look-b
impl Look {
    #[track_caller]
    fn range(&self, values: impl IntoIterator<Item = f64>) -> (f64, f64) {
        let finite = values.into_iter().filter(|v| v.is_finite()).map(|v| v.clamp(-1e300, 1e300));
        let (lo, hi) = finite.fold((f64::MAX, f64::MIN), |(lo, hi), v| (lo.min(v), hi.max(v)));
        let most = lo.abs().max(hi.abs());
        let suits = match self.colors {
            Colors::Rgb | Colors::RgbPlanes => (0.0, 1.0),
            _ if lo > hi => (0.0, 1.0),
            Colors::BlueRed => {
                if most > 0.0 {
                    (-most, most)
                } else {
                    (-1.0, 1.0)
                }
            }
            _ if lo == hi => (lo, lo + most.max(1.0)), // a constant image is black
            _ => (lo, hi),
        };
        chosen(self.range, Scale::Linear, suits)
    }
}

// %% notebooks/90_plot.ipynb look-c
impl Look {
    /// The bytes of an image.
    fn rgb(&self, values: &[f64], (lo, hi): (f64, f64)) -> Vec<u8> {
        const MISSING: Rgb = [255, 0, 200];
        let color = |value: f64| match value {
            v if v.is_nan() => MISSING,
            v => mix(self.colors.stops(), (v - lo) / (hi - lo)),
        };
        let pixels = values.len() / self.colors.channels();
        let pixel = |i: usize| match self.colors {
            Colors::Rgb => [0, 1, 2].map(|c| color(values[3 * i + c])[c]),
            Colors::RgbPlanes => [0, 1, 2].map(|c| color(values[c * pixels + i])[c]),
            _ => color(values[i]),
        };
        (0..pixels).flat_map(pixel).collect()
    }
}

// %% notebooks/90_plot.ipynb check-shape
#[track_caller]
fn check_shape(what: &str, values: &[f64], (h, w): (usize, usize), colors: Colors) {
    let (n, channels) = (values.len(), colors.channels());
    let fits = h > 0 && w > 0 && n == h * w * channels;
    assert!(fits, "{what}: {n} numbers are not {h} by {w} pixels of {channels}");
}

// %% notebooks/90_plot.ipynb whole-ticks
/// Some of `n` rows or columns, and where their middles are, at least `room` apart.
fn whole_ticks(n: usize, (start, end): (usize, usize), room: f64) -> Vec<(String, f64)> {
    let axis = Axis::new(Scale::Linear, (-0.5, n as f64 - 0.5), (start as f64, end as f64));
    let whole = |tick: &Tick| tick.0.fract() == 0.0;
    let apart = |t: &[Tick]| axis.at(t[1].0) - axis.at(t[0].0) >= room;
    let ticks = ticks(&axis, &|ticks| ticks.iter().all(whole) && ticks.windows(2).all(apart));
    ticks.into_iter().filter(whole).map(|(i, label)| (label, axis.at(i))).collect()
}

// %% notebooks/90_plot.ipynb draw-scale
/// The colours from `lo`, below, to `hi`, above, with their numbers.
fn draw_scale(page: &mut Page, at: (usize, usize), height: usize, look: &Look, range: (f64, f64)) {
    const WIDTH: usize = 12;
    let axis = Axis::new(Scale::Linear, range, (height as f64, 0.0));
    let shade = |y: usize| axis.value(1.0 - (y as f64 + 0.5) / height as f64);
    let values: Vec<f64> = (0..height).flat_map(|y| [shade(y); WIDTH]).collect();
    page.image(at, 1, (height, WIDTH), look.rgb(&values, range));
    let (left, top) = ((at.0 + WIDTH + 6) as f64, at.1 as f64);
    page.text((left, top + 9.0), Align::Left, SMALL, GREY, &number(range.1));
    page.text((left, top + height as f64), Align::Left, SMALL, GREY, &number(range.0));
}

// %% notebooks/90_plot.ipynb image-figure
#[track_caller]
fn image_figure(title: String, values: &[f64], (h, w): (usize, usize), look: Look) -> Figure {
    check_shape("imshow", values, (h, w), look.colors);
    let (lo, hi) = look.range(values.iter().copied());
    let zoom = look.zoom.unwrap_or(360 / h.max(w)).max(1);
    let left = 20 + text_width(&(h - 1).to_string(), SMALL).ceil() as usize;
    let (right, room) = (left + w * zoom, if look.colors.channels() == 1 { 124 } else { 28 });
    let mut page = Page::new((right + room).max(240), 0);
    let top = heading(&mut page, &title) as usize + 14;
    let bottom = top + h * zoom;
    page.height = bottom + 32;
    page.image((left, top), zoom, (h, w), look.rgb(values, (lo, hi)));
    for (column, middle) in whole_ticks(w, (left, right), 40.0) {
        page.text((middle, bottom as f64 + 18.0), Align::Middle, SMALL, GREY, &column);
    }
    for (row, middle) in whole_ticks(h, (top, bottom), 28.0) {
        page.text((left as f64 - 6.0, middle + 4.5), Align::Right, SMALL, GREY, &row);
    }
    if look.colors.channels() == 1 {
        draw_scale(&mut page, (right + 20, top), h * zoom, &look, (lo, hi));
    }
    let [lo, hi] = [lo, hi].map(number);
    let description = format!("Image of {h} by {w} pixels, colours from {lo} to {hi}.");
    Figure { page, title, description }
}

// %% notebooks/90_plot.ipynb imshow
/// One image of (h, w) pixels, row by row from the top, with the numbers of rows and columns and,
/// unless it is in colour already, a scale. NaN is pink.
///
/// # Panics
/// When there are not h · w numbers (for `Rgb` and `RgbPlanes`, three times as many).
#[track_caller]
pub fn imshow(
    title: impl Into<String>,
    pixels: impl IntoIterator<Item: Number>,
    (h, w): (usize, usize),
    look: Look,
) -> Figure {
    image_figure(title.into(), &f64s(pixels), (h, w), look)
}

// %% notebooks/90_plot.ipynb even-columns
/// From a square to twice as wide as high: as few empty places in the last row as can be.
fn even_columns(n: usize) -> usize {
    let square = (n as f64).sqrt();
    let choices = square.ceil() as usize..=(2.0 * square).ceil() as usize;
    choices.filter(|&c| c > 0).min_by_key(|c| n.div_ceil(*c) * c - n).unwrap_or(1)
}

// %% notebooks/90_plot.ipynb image-grid
#[track_caller]
fn image_grid(
    title: String,
    captions: &[String],
    pictures: &[Vec<f64>],
    (h, w): (usize, usize),
    look: Look,
) -> Figure {
    const GAP: usize = 12;
    pictures.iter().for_each(|values| check_shape("show_images", values, (h, w), look.colors));
    let range = look.range(pictures.iter().flatten().copied());
    let columns = look.columns.unwrap_or(even_columns(pictures.len())).max(1);
    let side = (620 / columns).saturating_sub(GAP).min(160);
    let zoom = look.zoom.unwrap_or(side / h.max(w).max(1)).max(1);
    let below = if captions.iter().all(String::is_empty) { 0 } else { 20 };
    let (across, down) = (w * zoom + GAP, h * zoom + below + GAP);
    let mut page = Page::new((GAP + columns * across).max(240), 0);
    let top = heading(&mut page, &title) as usize + 14;
    page.height = top + pictures.len().div_ceil(columns).max(1) * down;
    for (i, (caption, values)) in captions.iter().zip(pictures).enumerate() {
        let (left, top) = (GAP + i % columns * across, top + i / columns * down);
        page.image((left, top), zoom, (h, w), look.rgb(values, range));
        let middle = ((left + w * zoom / 2) as f64, (top + h * zoom + 16) as f64);
        page.text(middle, Align::Middle, SMALL, INK, &fit(caption, SMALL, across as f64));
    }
    if pictures.is_empty() {
        nothing(&mut page);
    }
    let named = if below > 0 { format!(": {}", captions.join(", ")) } else { String::new() };
    let n = pictures.len();
    let description = format!("{n} images of {h} by {w} pixels, {columns} in a row{named}.");
    Figure { page, title, description }
}

// %% notebooks/90_plot.ipynb show-images
/// A grid of images of (h, w) pixels: pairs of a caption (or `""`) and the image's numbers.
/// All images share one range of colours.
///
/// # Panics
/// When an image has not h · w numbers (for `Rgb` and `RgbPlanes`, three times as many).
#[track_caller]
pub fn show_images(
    title: impl Into<String>,
    images: impl IntoIterator<Item = (impl Display, impl IntoIterator<Item = impl Number>)>,
    (h, w): (usize, usize),
    look: Look,
) -> Figure {
    let (mut captions, mut pictures) = (vec![], vec![]);
    for (caption, pixels) in images {
        captions.push(caption.to_string());
        pictures.push(f64s(pixels));
    }
    image_grid(title.into(), &captions, &pictures, (h, w), look)
}

// %% notebooks/90_plot.ipynb changed
/// The smallest rectangle, as left, top, width and height, outside of which two pictures of one size agree.
fn changed(before: &Image, after: &Image) -> [usize; 4] {
    let (h, w) = after.shape;
    let differs =
        |y: usize, x: usize| before.rgb[(y * w + x) * 3..][..3] != after.rgb[(y * w + x) * 3..][..3];
    let rows: Vec<usize> = (0..h).filter(|&y| (0..w).any(|x| differs(y, x))).collect();
    let (Some(&top), Some(&bottom)) = (rows.first(), rows.last()) else {
        return [0, 0, 1, 1]; // nothing has changed, but a frame must have a pixel
    };
    let within = |x: &usize| rows.iter().any(|&y| differs(y, *x));
    let left = (0..w).find(within).unwrap_or(0);
    let right = (0..w).rfind(within).unwrap_or(w - 1);
    [left, top, right + 1 - left, bottom + 1 - top]
}

/// The part of a picture that lies in a rectangle: left, top, width, height.
fn part(image: &Image, [left, top, w, h]: [usize; 4]) -> Vec<u8> {
    let row = |y: usize| &image.rgb[(y * image.shape.1 + left) * 3..][..w * 3];
    (top..top + h).flat_map(row).copied().collect()
}

// %% notebooks/90_plot.ipynb changed-b
/// The bytes of an animated PNG that goes round for ever. The pictures have one size.
fn encode_animation(images: &[Image], seconds_per_frame: f64) -> Vec<u8> {
    let ((h, w), mut bytes) = (images[0].shape, vec![]);
    let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.set_animated(images.len() as u32, 0).expect(TAKEN);
    encoder.set_frame_delay((seconds_per_frame * 1000.0).round() as u16, 1000).expect(TAKEN);
    let mut writer = encoder.write_header().expect(TAKEN);
    writer.write_image_data(&images[0].rgb).expect(TAKEN);
    for pair in images.windows(2) {
        let [left, top, width, height] = changed(&pair[0], &pair[1]);
        // First the size, while the frame stands at 0: a frame must lie inside the picture at all times.
        writer.set_frame_position(0, 0).expect(TAKEN);
        writer.set_frame_dimension(width as u32, height as u32).expect(TAKEN);
        writer.set_frame_position(left as u32, top as u32).expect(TAKEN);
        writer.write_image_data(&part(&pair[1], [left, top, width, height])).expect(TAKEN);
    }
    writer.finish().expect(TAKEN);
    bytes
}

// %% notebooks/90_plot.ipynb animate
/// Figures of one size, shown one after the other for ever; it shows itself at the end of a notebook's cell.
#[derive(Clone)]
pub struct Animation {
    /// The pictures, at least one.
    pub frames: Vec<Figure>,
    /// What is shown.
    pub title: String,
    /// How long each picture stays, in seconds.
    pub seconds_per_frame: f64,
}

impl Animation {
    /// What there is to see, for those who cannot see it.
    pub fn description(&self) -> String {
        let says = |figure: &Figure| format!("{}. {}", figure.title, figure.description);
        let (first, last) = (says(&self.frames[0]), says(&self.frames[self.frames.len() - 1]));
        format!("{} pictures, one after the other. First: {first} Last: {last}", self.frames.len())
    }

    /// An animated PNG with one pixel per CSS pixel.
    pub fn png(&self) -> Vec<u8> {
        let images: Vec<Image> = self.frames.iter().map(|figure| halve(&raster(&figure.page))).collect();
        encode_animation(&images, self.seconds_per_frame)
    }
}

// %% notebooks/90_plot.ipynb animate-b
impl Animation {
    /// Writes `NAME.png`. An older file is replaced in one step.
    ///
    /// # Errors
    /// For any other ending, and when the file cannot be written; the message names the file.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if path.extension().is_none_or(|ending| ending != "png") {
            let message = format!("{}: the name of an animation ends in .png", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        write_whole(path, &self.png()).map_err(named)
    }
}

// %% notebooks/90_plot.ipynb animate-new
/// Shows figures of one size one after the other, as `animate("Steps", steps.iter().map(draw), 0.5)`.
///
/// # Panics
/// If there is no figure, if their sizes differ, or if the time is not above 0 and at most 60 seconds.
#[track_caller]
pub fn animate(
    title: impl Into<String>,
    frames: impl IntoIterator<Item = Figure>,
    seconds_per_frame: f64,
) -> Animation {
    let (title, frames): (String, Vec<Figure>) = (title.into(), frames.into_iter().collect());
    assert!(!frames.is_empty(), "animate: no figures");
    let size = |figure: &Figure| (figure.page.width, figure.page.height);
    for (i, figure) in frames.iter().enumerate() {
        let (first, this) = (size(&frames[0]), size(figure));
        assert!(first == this, "animate: figure 0 has size {first:?}, figure {i} has {this:?}");
    }
    let time_fits = seconds_per_frame > 0.0 && seconds_per_frame <= 60.0;
    assert!(time_fits, "animate: {seconds_per_frame} seconds per frame, not above 0 and at most 60");
    Animation { frames, title, seconds_per_frame }
}

// %% notebooks/90_plot.ipynb animate-new-b
impl Rich for Animation {
    fn bundle(&self) -> Bundle {
        let alt = format!("{}. {}", self.title, self.description());
        img(self.frames[0].page.width, alt, "png", self.png())
    }
}

impl Animation {
    /// Shows the animation in the notebook; evcxr calls it when a cell ends with an `Animation`.
    pub fn evcxr_display(&self) {
        self.bundle().print_block();
    }
}

impl fmt::Debug for Animation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Animation {:?}: {}", self.title, self.description())
    }
}
