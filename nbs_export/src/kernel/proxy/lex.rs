//! Just enough of Rust's tokens to know where a statement may begin.

/// What encloses a place, and what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Open brackets, from the outside in.
    pub open: Vec<(char, usize)>,
    /// The last character before it that is neither blank nor in a comment.
    pub last: Option<char>,
    /// Inside a string, a character or a comment.
    pub inside: bool,
}

impl Place {
    /// May a statement begin here?
    pub fn is_statement_start(&self) -> bool {
        let block = self.open.last().is_none_or(|(b, _)| *b == '{');
        !self.inside && block && matches!(self.last, None | Some(';' | '}' | '{'))
    }
}

/// The place at each byte offset that is asked for; offsets must rise.
pub fn places(source: &str, offsets: &[usize]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut wanted = offsets.iter().copied().peekable();
    let mut scan = Scan { bytes: source.as_bytes(), at: 0 };
    let mut place = Place { open: vec![], last: None, inside: false };
    loop {
        while wanted.next_if(|&w| w <= scan.at).is_some() {
            found.push(place.clone());
        }
        let start = scan.at;
        let Some(token) = scan.token() else { break };
        // What lies within a token that has an inside.
        let inside = matches!(token, Token::Text | Token::Comment);
        while let Some(w) = wanted.next_if(|&w| w < scan.at) {
            found.push(Place { inside: inside && w > start, ..place.clone() });
        }
        match token {
            Token::Blank | Token::Comment => {}
            Token::Text => place.last = Some('"'),
            Token::Other(c) => {
                match c {
                    '(' | '[' | '{' => place.open.push((c, start)),
                    ')' | ']' | '}' => drop(place.open.pop()),
                    _ => {}
                }
                place.last = Some(c);
            }
        }
    }
    // After the end: in a string or comment that was never closed?
    let unclosed = scan.unclosed();
    found.extend(wanted.map(|_| Place { inside: unclosed, ..place.clone() }));
    found
}

/// The place after the last character.
pub fn end(source: &str) -> Place {
    places(source, &[source.len() + 1]).remove(0)
}

enum Token {
    Blank,
    Comment,
    Text,
    Other(char),
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn token(&mut self) -> Option<Token> {
        let c = *self.bytes.get(self.at)?;
        Some(match c {
            _ if c.is_ascii_whitespace() => {
                self.at += 1;
                Token::Blank
            }
            b'/' if self.peek(1) == b'/' => {
                self.skip_to(b"\n", 0);
                Token::Comment
            }
            b'/' if self.peek(1) == b'*' => {
                self.block_comment();
                Token::Comment
            }
            b'"' => {
                self.string();
                Token::Text
            }
            b'\'' => {
                self.quote();
                Token::Text
            }
            _ if is_name(c) => {
                self.name();
                return Some(if self.bytes[self.at - 1] == b'"' || self.bytes[self.at - 1] == b'#' {
                    Token::Text
                } else {
                    Token::Other('a')
                });
            }
            _ => {
                self.at += 1;
                Token::Other(char::from(c))
            }
        })
    }

    /// Past the next occurrence of the text, or to the end.
    fn skip_to(&mut self, text: &[u8], from: usize) {
        let start = (self.at + from).min(self.bytes.len());
        let found = self.bytes[start..].windows(text.len()).position(|w| w == text);
        self.at = found.map_or(self.bytes.len() + 1, |p| start + p + text.len()).min(self.bytes.len());
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.bytes.len();
    }

    /// A character such as `'x'` or `'\n'`, or a lifetime such as `'a`.
    fn quote(&mut self) {
        self.at += 1;
        if self.peek(0) == b'\\' {
            self.at += 2;
            while self.at < self.bytes.len() && self.peek(0) != b'\'' && self.peek(0) != b'\n' {
                self.at += 1;
            }
            self.at = (self.at + 1).min(self.bytes.len());
            return;
        }
        let rest = std::str::from_utf8(&self.bytes[self.at..]).unwrap_or_default();
        let mut chars = rest.char_indices();
        let second = chars.nth(1);
        match second {
            Some((at, '\'')) => self.at += at + 1,
            _ => {
                while is_name(self.peek(0)) {
                    self.at += 1;
                }
            }
        }
    }

    /// A name or number, or a string with a prefix: `r"…"`, `b"…"`, `r#"…"#`, `c"…"`.
    fn name(&mut self) {
        let start = self.at;
        while is_name(self.peek(0)) {
            self.at += 1;
        }
        let name = &self.bytes[start..self.at];
        let raw = matches!(name, b"r" | b"br" | b"cr");
        if raw {
            let hashes = self.bytes[self.at..].iter().take_while(|&&b| b == b'#').count();
            if self.peek(hashes) == b'"' {
                let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
                self.skip_to(&close, hashes + 1);
            }
        } else if matches!(name, b"b" | b"c") && self.peek(0) == b'"' {
            self.string();
        }
    }

    /// Was the last token a string or comment without its end?
    fn unclosed(&self) -> bool {
        let text = std::str::from_utf8(self.bytes).unwrap_or_default();
        let probe = format!("{text}\n\"#####/*");
        // A closed text stays closed whatever follows; cheap, for cells are short.
        let mut scan = Scan { bytes: probe.as_bytes(), at: 0 };
        while scan.at < text.len() {
            if scan.token().is_none() {
                break;
            }
        }
        scan.at > text.len() + 1
    }
}

fn is_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c >= 128
}

#[cfg(test)]
mod tests {
    use super::*;

    /// May a statement begin at the mark `§`?
    fn starts(source: &str) -> bool {
        let at = source.find('§').unwrap();
        places(&source.replace('§', ""), &[at])[0].is_statement_start()
    }

    #[test]
    fn statements_begin_after_semicolons_and_braces() {
        for yes in [
            "§!ls",
            "let a = 1;\n§",
            "for i in 0..3 {\n  §",
            "fn f() {}\n§",
            "// x\n§",
            "let s = \"(\"; // {\n§",
        ] {
            assert!(starts(yes), "{yes}");
        }
        for no in [
            "let a = b &&\n  §!c;",
            "f(\n§)",
            "let s = \"\n§\";",
            "/* \n§ */",
            "let s = r#\"a\"\n§\"#;",
            "[\n§]",
        ] {
            assert!(!starts(no), "{no}");
        }
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        assert!(starts("fn f<'a>(x: &'a str) -> char { '{' }\n§"));
        assert!(starts("let c = '\\''; let d = '\"';\n§"));
        assert!(starts("let b = b'x'; let q = 'é';\n§"));
    }

    #[test]
    fn the_end_knows_what_is_open() {
        assert_eq!(end("fn f() { g(").open.iter().map(|o| o.0).collect::<String>(), "{(");
        assert!(end("let s = \"abc").inside);
        assert!(end("let s = r#\"abc\"").inside);
        assert!(end("/* abc").inside);
        assert!(!end("// abc").inside);
        assert!(!end("let s = \"abc\";").inside);
    }
}
