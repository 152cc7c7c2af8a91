//! Telling evcxr's marks, and ours, from what a cell prints.

use serde_json::Value;

/// What evcxr prints, or lets a cell print, for itself. They may come after text on the same line: the process that runs
/// the cells has two standard outputs, evcxr's own and the cells', each with a buffer.
const COMPLETE: &str = "EVCXR_EXECUTION_COMPLETE";
const PANICKED: &str = "EVCXR_PANIC_NOTIFICATION";
const FAILED: &str = "EVCXR_ERROR_OCCURRED";
const RETYPED: &str = "EVCXR_VARIABLE_CHANGED_TYPE:";
const BEGIN: &str = "EVCXR_BEGIN_CONTENT ";
const END: &str = "EVCXR_END_CONTENT";
/// A live display, as the crate prints it for this kernel.
const DISPLAY: &str = "\u{1e}minai-display ";

/// A piece of a cell's standard output.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(String),
    /// Rich output: a MIME type and what is of it.
    Content(String, String),
    /// A display that is shown, changed or cleared at once.
    Display(Value),
    /// The cell has ended.
    Complete,
    Panicked,
    /// A `?` has ended the cell early.
    Failed,
    /// A variable was lost: its type was defined again.
    Retyped(String),
}

impl Piece {
    /// The line that evcxr must read.
    pub fn for_evcxr(&self) -> Option<String> {
        match self {
            Self::Complete => Some(COMPLETE.into()),
            Self::Panicked => Some(PANICKED.into()),
            Self::Failed => Some(FAILED.into()),
            Self::Retyped(name) => Some(format!("{RETYPED}{name}")),
            _ => None,
        }
    }
}

/// Takes bytes as they come, and gives pieces as early as it can.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Not yet given: an unfinished character, or what may become a mark.
    pending: Vec<u8>,
    content: Option<(String, String)>,
}

impl Scanner {
    /// The pieces that are complete now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.pending.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(at) = self.pending.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=at).collect();
            self.line(&String::from_utf8_lossy(&line), &mut pieces);
        }
        if self.content.is_none() {
            self.partial(&mut pieces);
        }
        pieces
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.pending);
        let mut pieces = Vec::new();
        push_text(&mut pieces, &String::from_utf8_lossy(&rest));
        if let Some((mime, data)) = self.content.take() {
            pieces.push(Piece::Content(mime, data));
        }
        pieces
    }

    fn line(&mut self, line: &str, pieces: &mut Vec<Piece>) {
        if let Some((_, data)) = &mut self.content {
            match line.trim_end_matches('\n') {
                END => {
                    let (mime, data) = self.content.take().unwrap_or_default();
                    pieces.push(Piece::Content(mime, data));
                }
                // A panic while something was shown.
                PANICKED => {
                    self.content = None;
                    pieces.push(Piece::Panicked);
                }
                text => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(text);
                }
            }
            return;
        }
        let Some(at) = line.find("EVCXR_").or_else(|| line.find(DISPLAY)) else {
            return push_text(pieces, line);
        };
        let (before, mark) = line.split_at(at);
        let piece = match mark.trim_end_matches('\n') {
            COMPLETE => Some(Piece::Complete),
            PANICKED => Some(Piece::Panicked),
            FAILED => Some(Piece::Failed),
            mark => mark.strip_prefix(RETYPED).map(|name| Piece::Retyped(name.into())),
        };
        let display = || serde_json::from_str(mark.strip_prefix(DISPLAY)?).ok().map(Piece::Display);
        match piece.or_else(display) {
            Some(piece) => {
                push_text(pieces, before);
                pieces.push(piece);
            }
            None => match mark.trim_end().strip_prefix(BEGIN) {
                Some(mime) if !mime.contains(' ') => {
                    push_text(pieces, before);
                    self.content = Some((mime.to_owned(), String::new()));
                }
                _ => push_text(pieces, line),
            },
        }
    }

    /// Gives what there is of an unfinished line, but for what may become a mark or a whole character.
    fn partial(&mut self, pieces: &mut Vec<Piece>) {
        let mut end = self.pending.len();
        for start in ["EVCXR_", DISPLAY].map(str::as_bytes) {
            end = end.min(find_beginning(&self.pending, start));
        }
        let whole = match std::str::from_utf8(&self.pending[..end]) {
            Ok(_) => end,
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => end,
        };
        let text: Vec<u8> = self.pending.drain(..whole).collect();
        push_text(pieces, &String::from_utf8_lossy(&text));
    }
}

/// Where the mark, or its first bytes at the very end, begins; the length if nowhere.
fn find_beginning(bytes: &[u8], mark: &[u8]) -> usize {
    let begins = |at: &usize| {
        let rest = &bytes[*at..];
        rest.starts_with(mark) || mark.starts_with(rest)
    };
    (0..bytes.len()).find(begins).unwrap_or(bytes.len())
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(t: &str) -> Piece {
        Piece::Text(t.into())
    }

    /// All at once, and byte by byte.
    fn scan(bytes: &[u8]) -> Vec<Piece> {
        let mut whole = Scanner::default();
        let mut all = whole.feed(bytes);
        all.extend(whole.finish());
        let (mut single, mut joined) = (Scanner::default(), Vec::new());
        let one_by_one: Vec<_> = bytes.chunks(1).flat_map(|b| single.feed(b)).collect();
        for piece in one_by_one.into_iter().chain(single.finish()) {
            match piece {
                Piece::Text(t) => push_text(&mut joined, &t),
                other => joined.push(other),
            }
        }
        assert_eq!(joined, all);
        all
    }

    #[test]
    fn output_without_a_newline_is_given_at_once() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.feed(b"50 %"), [text("50 %")]);
        assert_eq!(scanner.feed("ä".as_bytes().get(..1).unwrap()), []);
        assert_eq!(scanner.feed("ä".as_bytes().get(1..).unwrap()), [text("ä")]);
        assert_eq!(scanner.feed(b"\rEVC"), [text("\r")]);
        assert_eq!(scanner.feed(b"EL\n"), [text("EVCEL\n")]);
    }

    #[test]
    fn marks_are_found_wherever_they_stand() {
        let all =
            scan(b"a\nbEVCXR_EXECUTION_COMPLETE\nEVCXR_PANIC_NOTIFICATION\nEVCXR_VARIABLE_CHANGED_TYPE:p\n");
        assert_eq!(all, [text("a\nb"), Piece::Complete, Piece::Panicked, Piece::Retyped("p".into())]);
        assert_eq!(all[3].for_evcxr().as_deref(), Some("EVCXR_VARIABLE_CHANGED_TYPE:p"));
    }

    #[test]
    fn what_only_looks_like_a_mark_is_text() {
        let lines =
            "EVCXR_EXECUTION_COMPLETED\nEVCXR_ is a prefix\nEVCXR_END_CONTENT\n\u{1e}minai-display {\n";
        assert_eq!(scan(lines.as_bytes()), [text(lines)]);
    }

    #[test]
    fn rich_output_is_gathered() {
        let all = scan(b"x\nEVCXR_BEGIN_CONTENT text/html\n<b>\n\nEVCXR\n</b>\nEVCXR_END_CONTENT\ny\n");
        let content = Piece::Content("text/html".into(), "<b>\n\nEVCXR\n</b>".into());
        assert_eq!(all, [text("x\n"), content, text("y\n")]);
    }

    #[test]
    fn a_panic_ends_rich_output() {
        let all = scan(b"EVCXR_BEGIN_CONTENT text/html\n<b>\nEVCXR_PANIC_NOTIFICATION\n");
        assert_eq!(all, [Piece::Panicked]);
    }

    #[test]
    fn displays_are_read() {
        let all = scan("now\u{1e}minai-display {\"op\":\"clear\"}\n".as_bytes());
        assert_eq!(all, [text("now"), Piece::Display(json!({"op": "clear"}))]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_output() {
        assert_eq!(scan(b"a\xffb\n"), [text("a\u{fffd}b\n")]);
    }
}
