//! The `//|` lines at the top of a code cell.

use std::fmt;

use crate::code;

/// How the line above every exported cell begins: the exporter's own, which no cell may hold.
pub const MARKER: &str = "// %% notebooks/";

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// `default_exp NAME`: where `export` without a name goes.
    DefaultExp(String),
    /// `export [NAME]`: the cell belongs to a module.
    Export(Option<String>),
    /// `doc [NAME] TEXT`: a line of a module's documentation. Whether a name comes first is decided later.
    Doc(String),
    /// `feature FEATURE [NAME]`: the module is only there with this cargo feature.
    Feature(String, Option<String>),
    /// `test NAME`: the cell becomes a test.
    Test(String),
    /// `hide`: the source is folded away.
    Hide,
    /// `eval: false`: the cell is not executed.
    NoEval,
    /// `should_panic`: the cell must panic.
    ShouldPanic,
    /// `compile_fail [CODE]`: the cell must not compile, with this error.
    CompileFail(Option<String>),
    /// `slow`: quick runs may skip the cell, and its test is ignored by default.
    Slow,
    /// `timed`: the outputs hold times, which `nbs run` saves only where nothing disturbed them.
    Timed,
}

/// What stands at the top of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// The directives with their lines in the cell, from 1.
    pub all: Vec<(usize, Directive)>,
}

/// A directive that makes no sense, or stands where none may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectiveError {
    /// The line in the cell, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for DirectiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for DirectiveError {}

impl Directives {
    /// Reads the directives of a cell.
    pub fn parse(source: &str) -> Result<Self, DirectiveError> {
        let head = head_lines(source);
        let inside_text = code::lines_inside_literals(source);
        let mut all = Vec::new();
        for (i, line) in source.lines().enumerate() {
            let error = |message| DirectiveError { line: i + 1, message };
            let Some(text) = line.trim_start().strip_prefix("//|") else {
                // A `#` ends the comments, as it would begin Rust; no other line of code can be meant as a directive.
                match meant(line).filter(|_| i <= head) {
                    Some(form) => {
                        return Err(error(format!(
                            "`{}` should read `//| {form}`: it has no effect",
                            line.trim()
                        )));
                    }
                    None => continue,
                }
            };
            if i < head {
                all.push((i + 1, parse_one(text.trim()).map_err(error)?));
            } else if !inside_text.contains(&i) {
                return Err(error(format!(
                    "`{}` stands below code, where it has no effect. Directives go to the top of a cell: \
                     split the cell here if two were merged",
                    line.trim()
                )));
            }
        }
        Ok(Self { all })
    }

    fn find<T>(&self, pick: impl Fn(&Directive) -> Option<T>) -> Option<T> {
        self.all.iter().find_map(|(_, d)| pick(d))
    }

    fn has(&self, directive: &Directive) -> bool {
        self.all.iter().any(|(_, d)| d == directive)
    }

    /// The line of the first directive that `pick` accepts, for messages.
    pub fn line_of(&self, pick: impl Fn(&Directive) -> bool) -> usize {
        self.all.iter().find(|(_, d)| pick(d)).map_or(1, |(line, _)| *line)
    }

    /// `default_exp NAME`: the module that the notebook owns.
    pub fn default_exp(&self) -> Option<String> {
        self.find(|d| if let Directive::DefaultExp(name) = d { Some(name.clone()) } else { None })
    }

    /// `export [NAME]`: `Some(None)` stands for the notebook's default module.
    pub fn export(&self) -> Option<Option<String>> {
        self.find(|d| if let Directive::Export(name) = d { Some(name.clone()) } else { None })
    }

    /// The name of the test that the cell becomes.
    pub fn test(&self) -> Option<String> {
        self.find(|d| if let Directive::Test(name) = d { Some(name.clone()) } else { None })
    }

    /// `compile_fail [CODE]`.
    pub fn compile_fail(&self) -> Option<Option<String>> {
        self.find(|d| if let Directive::CompileFail(code) = d { Some(code.clone()) } else { None })
    }

    /// Is the cell executed at all?
    pub fn eval(&self) -> bool {
        !self.has(&Directive::NoEval)
    }

    /// Must the cell panic?
    pub fn should_panic(&self) -> bool {
        self.has(&Directive::ShouldPanic)
    }

    /// Is the source folded away?
    pub fn hide(&self) -> bool {
        self.has(&Directive::Hide)
    }

    /// Do the outputs hold times?
    pub fn timed(&self) -> bool {
        self.has(&Directive::Timed)
    }

    /// May a quick run skip the cell?
    pub fn slow(&self) -> bool {
        self.has(&Directive::Slow)
    }
}

/// How many lines come before the first line that is neither blank nor a comment.
fn head_lines(source: &str) -> usize {
    let is_head = |l: &&str| l.trim().is_empty() || l.trim_start().starts_with("//");
    source.lines().take_while(is_head).count()
}

/// A cell's text, taken apart: directive lines, and everything else without blank lines around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The directive lines, each with `\n`.
    pub directives: String,
    /// The code.
    pub code: String,
    /// The line of the cell (from 0) at which each line of `code` stands.
    pub lines: Vec<usize>,
}

/// Takes a cell apart; [`Parts::join`] puts it together.
pub fn split(source: &str) -> Parts {
    let head = head_lines(source);
    let is_directive = |i: usize, l: &str| i < head && l.trim_start().starts_with("//|");
    let (mut directives, mut kept) = (String::new(), Vec::new());
    for (i, line) in source.lines().enumerate() {
        if is_directive(i, line) {
            directives += line.trim();
            directives.push('\n');
        } else {
            kept.push((i, line));
        }
    }
    let blank = |(_, l): &(usize, &str)| l.trim().is_empty();
    let start = kept.iter().position(|l| !blank(l)).unwrap_or(kept.len());
    let end = kept.iter().rposition(|l| !blank(l)).map_or(start, |e| e + 1);
    let kept = &kept[start..end];
    Parts {
        directives,
        code: kept.iter().map(|(_, l)| *l).collect::<Vec<_>>().join("\n"),
        lines: kept.iter().map(|(i, _)| *i).collect(),
    }
}

impl Parts {
    /// The cell's text, with `code` in place of what it had.
    pub fn join(&self, code: &str) -> String {
        format!("{}{code}", self.directives).trim_end_matches('\n').to_owned()
    }
}

/// What a line would be as a directive, where it has another notebook tool's form: `#| export`, `// | export`, `//export`.
fn meant(line: &str) -> Option<String> {
    let line = line.trim();
    let (comment, rest) = match line.strip_prefix("//") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix('#')?),
    };
    let (bar, text) = match rest.trim_start().strip_prefix('|') {
        Some(text) => (true, text.trim()),
        None => (false, rest.trim()),
    };
    let word = text.split_whitespace().next()?;
    let is_known = WORDS.contains(&word);
    let is_whole = is_known && parse_one(text).is_ok();
    // Comments may begin with such a word, so without the bar it takes more to be sure.
    let is_meant = match (comment, bar) {
        (_, true) => is_known,
        (false, false) => is_whole,
        (true, false) => is_whole && (!rest.starts_with(' ') || word == "default_exp" || text == "export"),
    };
    is_meant.then(|| text.to_owned())
}

/// How directives begin.
const WORDS: [&str; 11] = [
    "default_exp",
    "export",
    "doc",
    "feature",
    "test",
    "hide",
    "eval:",
    "should_panic",
    "compile_fail",
    "slow",
    "timed",
];

fn parse_one(text: &str) -> Result<Directive, String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let words: Vec<&str> = rest.split_whitespace().collect();
    let usage = |form: &str| Err(format!("`//| {text}` should read `//| {form}`"));
    match (word, words.as_slice()) {
        ("default_exp", [name]) => module_name(name).map(Directive::DefaultExp),
        ("default_exp", _) => usage("default_exp MODULE"),
        ("export", []) => Ok(Directive::Export(None)),
        ("export", [name]) => module_name(name).map(|n| Directive::Export(Some(n))),
        ("export", _) => usage("export [MODULE]"),
        ("doc", _) => Ok(Directive::Doc(rest.to_owned())),
        ("feature", [feature]) => feature_name(feature).map(|f| Directive::Feature(f, None)),
        ("feature", [feature, name]) => {
            Ok(Directive::Feature(feature_name(feature)?, Some(module_name(name)?)))
        }
        ("feature", _) => usage("feature FEATURE [MODULE]"),
        ("test", [name]) => identifier(name).map(Directive::Test),
        ("test", _) => usage("test NAME"),
        ("hide", []) => Ok(Directive::Hide),
        ("eval:", ["false"]) => Ok(Directive::NoEval),
        ("eval:" | "eval", _) => usage("eval: false"),
        ("should_panic", []) => Ok(Directive::ShouldPanic),
        ("compile_fail", []) => Ok(Directive::CompileFail(None)),
        ("compile_fail", [code]) if is_error_code(code) => {
            Ok(Directive::CompileFail(Some((*code).to_owned())))
        }
        ("compile_fail", _) => usage("compile_fail E0382"),
        ("slow", []) => Ok(Directive::Slow),
        ("timed", []) => Ok(Directive::Timed),
        ("hide" | "should_panic" | "slow" | "timed", _) => usage(word),
        _ => Err(format!(
            "unknown directive `//| {text}`; known are default_exp, export, doc, feature, test, hide, eval: false, \
             should_panic, compile_fail, slow, timed"
        )),
    }
}

fn is_error_code(code: &str) -> bool {
    code.len() == 5 && code.starts_with('E') && code[1..].bytes().all(|b| b.is_ascii_digit())
}

fn identifier(name: &str) -> Result<String, String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let ok = starts_well && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match syn::parse_str::<syn::Ident>(name) {
        Ok(_) if ok => Ok(name.to_owned()),
        _ => Err(format!(
            "`{name}` is no good name: use lowercase letters, digits and `_`, and no keyword of Rust"
        )),
    }
}

fn module_name(name: &str) -> Result<String, String> {
    match name {
        // Files that cargo gives a meaning of its own, and the parts of the crate that are written by hand.
        "lib" | "main" | "io" | "kernels" | "prelude" => {
            Err(format!("`{name}` cannot be the name of an exported module: the crate has that file already"))
        }
        "alloc" | "core" | "proc_macro" | "std" | "test" => {
            Err(format!("`{name}` cannot be the name of an exported module: it is a crate of Rust's own"))
        }
        // Keywords that `use` lines would take for a place.
        "crate" | "self" | "super" => {
            Err(format!("`{name}` cannot be the name of an exported module: it is a keyword of Rust"))
        }
        _ => identifier(name),
    }
}

fn feature_name(name: &str) -> Result<String, String> {
    let ok = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if ok { Ok(name.to_owned()) } else { Err(format!("`{name}` is no good name for a cargo feature")) }
}
