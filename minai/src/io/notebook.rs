//! What a notebook shows beyond lines of text: pictures, tables, bars that move.
//!
//! Any evcxr kernel shows blocks between two marks when the cell has ended: [`Bundle::print_block`]. The course's own
//! kernel, which sets `MINAI_DISPLAY=1`, also takes *marked lines* and shows what they say at once, while the cell
//! runs: [`display`] and its [`Handle`]. A marked line is the character U+001E, `minai-display`, a space and JSON:
//!
//! ```json
//! {"op": "display", "id": "7c1f", "data": {"text/plain": "loss 0.4", "text/html": "…"}, "metadata": {}}
//! ```
//!
//! `op` is `display`, `update` (the display of that id changes in place) or `clear` (the cell's output goes; `wait`
//! says whether only when the next output comes). Everywhere else a display is a plain line.

use crate::array::Array;
use serde_json::{Map, Value, json};
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::io::{Write, stdout};

/// Whether the kernel shows marked lines.
pub fn is_live() -> bool {
    std::env::var_os("MINAI_DISPLAY").is_some_and(|value| value == "1")
}

/// One thing in several forms. A front end shows the richest form that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// As plain text, for terminals and for whoever cannot see it.
    pub text: String,
    /// Other forms, each with its media type: `text/html` and `image/svg+xml` as text, `image/png` in base64.
    pub rich: Vec<(&'static str, String)>,
}

impl Bundle {
    /// Prints the block that an evcxr kernel shows when the cell has ended: what a type's `evcxr_display` does.
    pub fn print_block(&self) {
        for (media_type, data) in self.forms() {
            println!("EVCXR_BEGIN_CONTENT {media_type}\n{data}\nEVCXR_END_CONTENT");
        }
    }

    fn forms(&self) -> impl Iterator<Item = (&str, &str)> {
        let rich = self.rich.iter().map(|(media_type, data)| (*media_type, data.as_str()));
        [("text/plain", self.text.as_str())].into_iter().chain(rich)
    }
}

/// Anything as text: `display(&text(&x))`.
pub fn text(x: &(impl Debug + ?Sized)) -> Bundle {
    Bundle { text: format!("{x:?}"), rich: Vec::new() }
}

/// What [`display`] can show. For a type of your own it is a line: `fn bundle(&self) -> Bundle { text(self) }`.
pub trait Rich {
    /// All forms of it.
    fn bundle(&self) -> Bundle;
}

impl Rich for Bundle {
    fn bundle(&self) -> Bundle {
        self.clone()
    }
}

impl Rich for str {
    fn bundle(&self) -> Bundle {
        Bundle { text: self.to_owned(), rich: Vec::new() }
    }
}

impl Rich for String {
    fn bundle(&self) -> Bundle {
        self.as_str().bundle()
    }
}

impl<T: Rich + ?Sized> Rich for &T {
    fn bundle(&self) -> Bundle {
        (**self).bundle()
    }
}

macro_rules! shown_as_debug {
    ($($kind:ty),*) => {
        $(impl Rich for $kind {
            fn bundle(&self) -> Bundle {
                text(self)
            }
        })*
    };
}

shown_as_debug!(bool, char, f32, f64, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

impl<T: Debug> Rich for [T] {
    fn bundle(&self) -> Bundle {
        text(self)
    }
}

impl<T: Debug, const N: usize> Rich for [T; N] {
    fn bundle(&self) -> Bundle {
        text(self)
    }
}

impl<T: Debug> Rich for Vec<T> {
    fn bundle(&self) -> Bundle {
        text(self)
    }
}

impl<T: Debug> Rich for Option<T> {
    fn bundle(&self) -> Bundle {
        text(self)
    }
}

impl<T> Rich for Array<T>
where
    Array<T>: Debug,
{
    fn bundle(&self) -> Bundle {
        text(self)
    }
}

/// A place in a notebook where something is shown, and can be shown anew. See [`display`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The display's name, if the kernel can change what it shows.
    id: Option<String>,
}

/// Shows something at once, while the cell runs; the handle changes it in place. In other kernels and in a terminal
/// this and each change print a line.
pub fn display(x: &(impl Rich + ?Sized)) -> Handle {
    Handle::new(&x.bundle())
}

/// Removes all that the cell has shown so far, as soon as it shows something else: the next picture takes the place of
/// the last one without a flicker. Elsewhere nothing happens.
pub fn clear_output() {
    if is_live() {
        send(&json!({"op": "clear", "wait": true}));
    }
}

impl Handle {
    fn new(bundle: &Bundle) -> Handle {
        // A fresh `RandomState` has keys of its own, so no two displays share a name, in this process or the next.
        let handle =
            Handle { id: is_live().then(|| format!("{:016x}", RandomState::new().hash_one("display"))) };
        handle.show("display", bundle);
        handle
    }

    /// Shows `x` where the last thing was.
    pub fn update(&self, x: &(impl Rich + ?Sized)) {
        self.show("update", &x.bundle());
    }

    /// Leaves the place empty. What was printed elsewhere stays.
    pub fn clear(&self) {
        if self.id.is_some() {
            self.update("");
        }
    }

    fn show(&self, op: &str, bundle: &Bundle) {
        match &self.id {
            Some(id) => {
                let data: Map<String, Value> =
                    bundle.forms().map(|(media_type, data)| (media_type.to_owned(), data.into())).collect();
                send(&json!({"op": op, "id": id, "data": data, "metadata": {}}));
            }
            None => println!("{}", bundle.text),
        }
    }
}

/// Prints a marked line, in one piece whatever other threads print.
fn send(message: &Value) {
    let line = format!("\u{1e}minai-display {message}\n");
    let mut stdout = stdout().lock();
    // Where nobody reads, nobody misses it.
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_text() {
        assert_eq!("a\nb".bundle().text, "a\nb");
        assert_eq!(String::from("c").bundle().text, "c");
        assert_eq!(1.5_f32.bundle().text, "1.5");
        assert_eq!(vec![Some(1), None].bundle().text, "[Some(1), None]");
        assert_eq!([[1, 2]].bundle().text, "[[1, 2]]");
        assert_eq!(text(&("a", 1)).bundle().text, "(\"a\", 1)");
        assert_eq!((&&2_u8).bundle(), Bundle { text: "2".into(), rich: Vec::new() });
    }

    #[test]
    fn a_bundle_begins_with_its_text() {
        let bundle = Bundle { text: "t".into(), rich: vec![("text/html", "<b>t</b>".into())] };
        assert_eq!(bundle.forms().collect::<Vec<_>>(), [("text/plain", "t"), ("text/html", "<b>t</b>")]);
    }
}
