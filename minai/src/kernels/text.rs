//! Arrays as text, in the form that PyTorch prints: columns aligned, the middle of large arrays left out.

/// Arrays with more elements than this are shown by their edges.
const MOST: usize = 1000;
/// As many from each end.
const EDGE: usize = 3;
/// Characters in a line.
const WIDTH: usize = 80;

/// What an array may hold and still be printed.
pub trait Element: Copy {
    /// A number with a point; `None` for other elements.
    fn float(self) -> Option<f64>;
    /// The text of an element without a point.
    fn plain(self) -> String;
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Element for $type {
            fn float(self) -> Option<f64> {
                Some(self.into())
            }

            fn plain(self) -> String {
                self.to_string()
            }
        }
    )*};
}

macro_rules! others {
    ($($type:ty),*) => {$(
        impl Element for $type {
            fn float(self) -> Option<f64> {
                None
            }

            fn plain(self) -> String {
                self.to_string()
            }
        }
    )*};
}

floats!(f32, f64);
others!(bool, u8, i32, i64, usize);

/// How all floats of an array are written.
#[derive(Clone, Copy)]
enum Style {
    /// `3.`
    Whole,
    /// `3.1416`
    Fixed,
    /// `3.1416e+00`
    Scientific,
}

impl Style {
    /// Whole numbers without digits after the point; powers of ten where sizes differ too much for one column.
    fn of(floats: &[f64]) -> Style {
        let sizes = || floats.iter().map(|x| x.abs()).filter(|&x| x > 0.0 && x.is_finite());
        let (smallest, largest) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
        let whole = sizes().all(|x| x.fract() == 0.0);
        if largest > 0.0 && (largest / smallest > 1000.0 || largest > 1e8 || !whole && smallest < 1e-4) {
            Style::Scientific
        } else if whole {
            Style::Whole
        } else {
            Style::Fixed
        }
    }

    fn write(self, x: f64, digits: usize) -> String {
        match self {
            _ if x.is_nan() => "nan".into(),
            _ if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
            Style::Whole => format!("{x:.0}."),
            Style::Fixed => format!("{x:.digits$}"),
            Style::Scientific => {
                let text = format!("{x:.digits$e}");
                let (digits, power) = text.split_once('e').expect("a power of ten");
                let power: i32 = power.parse().expect("a whole number");
                format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
            }
        }
    }
}

/// The positions along an axis that are shown; `None` stands for those left out.
fn shown(size: usize, short: bool) -> Vec<Option<usize>> {
    if !short || size <= 2 * EDGE {
        return (0..size).map(Some).collect();
    }
    (0..EDGE).map(Some).chain([None]).chain((size - EDGE..size).map(Some)).collect()
}

/// All places that are shown, in row-major order.
fn places(shape: &[usize], short: bool) -> Vec<Vec<usize>> {
    let mut places = vec![vec![]];
    for &size in shape {
        let along: Vec<usize> = shown(size, short).into_iter().flatten().collect();
        let longer = |place: Vec<usize>| along.iter().map(move |&i| [&place[..], &[i]].concat());
        places = places.into_iter().flat_map(longer).collect();
    }
    places
}

/// Lists in lists, from texts that are taken one after the other.
fn nested(shape: &[usize], short: bool, indent: usize, texts: &mut impl Iterator<Item = String>) -> String {
    let Some((&size, inner)) = shape.split_first() else { return texts.next().unwrap_or_default() };
    let is_row = inner.is_empty();
    let mut parts = Vec::new();
    for place in shown(size, short) {
        parts.push(match place {
            Some(_) => nested(inner, short, indent + 1, texts),
            None => if is_row { " ..." } else { "..." }.to_owned(),
        });
    }
    let new_line = format!("{}{}", "\n".repeat(inner.len().max(1)), " ".repeat(indent + 1));
    let in_a_line =
        if is_row { (WIDTH - indent.min(WIDTH)) / (parts.first().map_or(0, String::len) + 2) } else { 1 };
    let lines: Vec<String> = parts.chunks(in_a_line.max(1)).map(|line| line.join(", ")).collect();
    format!("[{}]", lines.join(&format!(",{new_line}")))
}

/// An array as text between `head`, such as `tensor(`, and `)`, with what `notes` say at its end.
///
/// `at` gives the element at a place. Floats are written with `digits` digits after the point.
pub fn write<T: Element>(
    head: &str,
    shape: &[usize],
    at: impl Fn(&[usize]) -> T,
    digits: usize,
    notes: &[String],
) -> String {
    let len: usize = shape.iter().product();
    let short = len > MOST;
    let elements: Vec<T> =
        if len == 0 { vec![] } else { places(shape, short).iter().map(|place| at(place)).collect() };
    let floats: Vec<f64> = elements.iter().filter_map(|x| x.float()).collect();
    let style = Style::of(&floats);
    let text = |x: &T| x.float().map_or_else(|| x.plain(), |x| style.write(x, digits));
    let texts: Vec<String> = elements.iter().map(text).collect();
    let width = texts.iter().map(String::len).max().unwrap_or(0);
    let width = if shape.is_empty() { 0 } else { width };
    let mut aligned = texts.iter().map(|text| format!("{text:>width$}"));
    let lists = if len == 0 { "[]".into() } else { nested(shape, short, head.len(), &mut aligned) };
    let mut notes = notes.to_vec();
    if short || len == 0 && shape.len() != 1 {
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        notes.insert(0, format!("size=({})", sizes.join(", ")));
    }
    finish(format!("{head}{lists}"), head.len(), &notes)
}

/// Adds notes, in a new line where the last one would become too long.
fn finish(mut text: String, indent: usize, notes: &[String]) -> String {
    for note in notes {
        let last = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
        let separator =
            if last + note.len() + 2 > WIDTH { format!(",\n{}", " ".repeat(indent)) } else { ", ".into() };
        text += &format!("{separator}{note}");
    }
    text + ")"
}
