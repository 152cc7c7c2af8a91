//! What a reader types: Rust, and the lines that are not.
//!
//! Every line keeps its place, so that a compiler's line number is the cell's.

use std::fmt;

use super::lex;

/// A cell, ready to be executed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// For evcxr: Rust, and its own commands.
    pub code: String,
    /// Names asked about with `?name`, or with `??name` for the source.
    pub questions: Vec<(String, bool)>,
    /// `:dep` lines, without the `:dep`.
    pub dependencies: Vec<String>,
    /// A command that stands alone.
    pub alone: Option<Alone>,
    /// `%%time`: say how long the whole cell took.
    pub timed: bool,
}

/// A command for the kernel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// `%reset`
    Reset,
    /// `%who`
    Who,
    /// `%whos`
    Whos,
    /// `%lsmagic`
    List,
}

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What `%` knows.
pub const MAGICS: &str = "\
%timeit EXPRESSION    how long it takes: mean and standard deviation of several runs
%%timeit              the same for the whole cell
%time STATEMENT       how long one run takes
%%time                the same for the whole cell
%who, %whos           the variables; with their types
%reset                forget all variables and items
%pwd, %cd FOLDER      the folder in which cells run
%env, %env A=1        environment variables
%%bash, %%sh          the cell is a script of the shell
%lsmagic              this list
!COMMAND              a command of the shell
?NAME, ??NAME         documentation; source";

impl Cell {
    /// Reads a cell.
    pub fn read(source: &str) -> Result<Self, Refused> {
        let source = source.replace("\r\n", "\n");
        let mut cell = Self::default();
        let mut lines: Vec<String> = source.split('\n').map(str::to_owned).collect();
        if let Some(whole) = cell.whole(&mut lines)? {
            cell.code = whole;
            return Ok(cell);
        }
        let offsets: Vec<usize> = source
            .split('\n')
            .scan(0, |at, line| {
                let start = *at + line.len() - line.trim_start().len();
                *at += line.len() + 1;
                Some(start)
            })
            .collect();
        let places = lex::places(&source, &offsets);
        // What the magic lines before it were does not matter for whether a statement may begin.
        let mut after_magic = true;
        let mut others = false;
        for (k, line) in lines.iter_mut().enumerate() {
            let text = line.trim().to_owned();
            if text.is_empty() || text.starts_with("//") {
                continue;
            }
            let start = places[k].is_statement_start() || (after_magic && !places[k].inside);
            let refused = |message: String| Refused { line: k + 1, message };
            let replaced = match text.as_bytes()[0] {
                b':' if start => match text.strip_prefix(":dep ") {
                    Some(dependency) => {
                        cell.dependencies.push(dependency.trim().to_owned());
                        Some(String::new())
                    }
                    None => Some(text),
                },
                b'!' if start && text.len() > 1 && !text.starts_with("!=") => {
                    let in_block = !places[k].open.is_empty();
                    Some(&text[1..]).filter(|t| !in_block || !is_rust(t, &source)).map(shell)
                }
                b'?' if start => match question(&text) {
                    Some(asked) => {
                        cell.questions.push(asked);
                        Some(String::new())
                    }
                    None => None,
                },
                b'%' if start => Some(cell.magic(&text).map_err(refused)?),
                _ => None,
            };
            after_magic = after_magic && replaced.is_some();
            match replaced {
                Some(new) => {
                    others |= !new.is_empty();
                    *line = new;
                }
                None => others = true,
            }
        }
        if cell.alone.is_some() && (others || !cell.questions.is_empty()) {
            return Err(Refused { line: 1, message: "this command stands in a cell of its own".into() });
        }
        cell.code = lines.join("\n");
        Ok(cell)
    }

    /// `%%` on the first line, which is about the whole cell.
    fn whole(&mut self, lines: &mut [String]) -> Result<Option<String>, Refused> {
        let first = lines.iter().position(|l| !l.trim().is_empty() && !l.trim_start().starts_with("//"));
        let Some(first) = first.filter(|&k| lines[k].trim_start().starts_with("%%")) else { return Ok(None) };
        let command = lines[first].trim()[2..].to_owned();
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command.as_str(), ""));
        let body = lines[first + 1..].join("\n");
        let above = "\n".repeat(first);
        let code = match name {
            "timeit" => {
                // On one line with the beginning, so that the body's lines stay where they are.
                let body = format!("{rest}\n{body}");
                format!("{above}println!(\"{{}}\", minai::nb::timeit(|| {{ {body}\n}}));")
            }
            "time" => {
                self.timed = true;
                format!("{above}{rest}\n{body}")
            }
            "bash" | "sh" => format!("{above}minai::nbs_cell::script({name:?}, {});", raw(&body)),
            _ => {
                let message = format!("`%%{name}` is not known here. There are:\n{MAGICS}");
                return Err(Refused { line: first + 1, message });
            }
        };
        Ok(Some(code))
    }

    /// A `%` line, as Rust.
    fn magic(&mut self, line: &str) -> Result<String, String> {
        let (name, rest) = line[1..].split_once(char::is_whitespace).unwrap_or((&line[1..], ""));
        let rest = rest.trim();
        let need = |what: &str| {
            if rest.is_empty() { Err(format!("`%{name}` wants {what} after it")) } else { Ok(()) }
        };
        let mut alone = |command| {
            self.alone = Some(command);
            Ok(String::new())
        };
        match name {
            "timeit" => {
                need("an expression")?;
                Ok(format!("println!(\"{{}}\", minai::nb::timeit(|| {{ {rest} }}));"))
            }
            "time" => {
                need("a statement")?;
                Ok(time(rest))
            }
            "who" => alone(Alone::Who),
            "whos" => alone(Alone::Whos),
            "reset" => alone(Alone::Reset),
            "lsmagic" => alone(Alone::List),
            "pwd" => Ok("println!(\"{}\", std::env::current_dir().unwrap_or_default().display());".into()),
            "cd" => {
                need("a folder")?;
                Ok(format!("minai::nbs_cell::cd({});", raw(rest)))
            }
            "env" => Ok(format!("minai::nbs_cell::env({});", raw(rest))),
            "%bash" | "%sh" | "%time" | "%timeit" => {
                Err(format!("`%{name}` stands on the first line of its cell"))
            }
            _ => Err(format!("`%{name}` is not known here. There are:\n{MAGICS}")),
        }
    }
}

/// A statement that says how long it took, and gives what the statement gives.
fn time(statement: &str) -> String {
    let end = if statement.ends_with(';') { ";" } else { "" };
    let statement = statement.trim_end_matches(';').trim();
    if let Ok(syn::Stmt::Local(local)) = syn::parse_str::<syn::Stmt>(&format!("{statement};"))
        && let Some(init) = &local.init
        && init.diverge.is_none()
    {
        let at = byte_offset(statement, syn::spanned::Spanned::span(&init.expr).start().column);
        let (before, value) = statement.split_at(at);
        return format!("{before}minai::nbs_cell::time(|| {value});");
    }
    format!("minai::nbs_cell::time(|| {statement}){end}")
}

fn byte_offset(text: &str, column: usize) -> usize {
    text.char_indices().nth(column).map_or(text.len(), |(at, _)| at)
}

fn shell(command: &str) -> String {
    format!("minai::nbs_cell::shell({});", raw(command.trim()))
}

/// Is what comes after a `!` in a block the rest of a negation? A path, a call or a field; a name that the cell has.
fn is_rust(text: &str, source: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let rest = text.trim_start_matches(is_name);
    let word = &text[..text.len() - rest.len()];
    if word.is_empty() {
        return rest.starts_with(['(', '*', '&', '{', '!', '<']);
    }
    let known = source.split(|c| !is_name(c)).filter(|w| *w == word).count() > 1;
    known || rest.starts_with(['(', '.', '[', '!']) || rest.starts_with("::")
}

/// `?name` or `??name`.
fn question(line: &str) -> Option<(String, bool)> {
    let name = line.trim_start_matches('?').trim();
    let source = line.starts_with("??");
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '!');
    let whole =
        !name.is_empty() && name.chars().all(is_name) && line.len() - line.trim_start_matches('?').len() <= 2;
    whole.then(|| (name.trim_end_matches('!').to_owned(), source))
}

/// A raw string literal.
fn raw(text: &str) -> String {
    let mut hashes = "#".to_owned();
    while text.contains(&format!("\"{hashes}")) {
        hashes.push('#');
    }
    format!("r{hashes}\"{text}\"{hashes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        let cell = Cell::read(source).unwrap();
        assert_eq!(cell.code.lines().count().max(1), source.lines().count().max(1), "lines moved: {source}");
        cell.code
    }

    #[test]
    fn rust_stays_as_it_is() {
        for source in [
            "let a = 1;\na",
            "let b = x\n  % y;",
            "if a\n    && !b {\n}",
            "let s = \"\n%who\n!ls\";",
            "fn f(x: f32) -> bool {\n    let y = 1;\n    !x.is_finite() || y > 2\n}",
            "fn f(done: bool) -> bool {\n    !done\n}",
            "fn f() -> bool {\n    !matches!(g(),\n 1)\n}",
            "{\n!(a && b)\n}",
        ] {
            assert_eq!(code(source), source);
        }
        assert_eq!(Cell::read("").unwrap(), Cell::default());
        assert_eq!(code("a\r\nb"), "a\nb");
    }

    #[test]
    fn commands_of_the_shell_may_stand_anywhere() {
        assert_eq!(
            code("let a = 1;\n!ls \"x\"#\na"),
            "let a = 1;\nminai::nbs_cell::shell(r##\"ls \"x\"#\"##);\na"
        );
        assert_eq!(
            code("for _ in 0..2 {\n    !date\n}"),
            "for _ in 0..2 {\nminai::nbs_cell::shell(r#\"date\"#);\n}"
        );
        assert_eq!(code("{\n!./a.sh x\n}"), "{\nminai::nbs_cell::shell(r#\"./a.sh x\"#);\n}");
        assert_eq!(code("!a\n!b"), "minai::nbs_cell::shell(r#\"a\"#);\nminai::nbs_cell::shell(r#\"b\"#);");
    }

    #[test]
    fn magics_become_rust() {
        assert_eq!(code("%timeit f(3)"), "println!(\"{}\", minai::nb::timeit(|| { f(3) }));");
        assert_eq!(code("%time let mut é = f(3)"), "let mut é = minai::nbs_cell::time(|| f(3));");
        assert_eq!(code("%time f(3)"), "minai::nbs_cell::time(|| f(3))");
        assert_eq!(code("let x = 2;\n%time f(x);"), "let x = 2;\nminai::nbs_cell::time(|| f(x));");
        assert_eq!(Cell::read("%whos").unwrap().alone, Some(Alone::Whos));
        assert!(Cell::read("%%time\nf()").unwrap().timed);
        let cell = Cell::read("%%timeit\nlet a = 2;\na * a").unwrap();
        assert_eq!(cell.code, "println!(\"{}\", minai::nb::timeit(|| { \nlet a = 2;\na * a\n}));");
        let script = Cell::read("%%bash\necho hi").unwrap().code;
        assert_eq!(script, "minai::nbs_cell::script(\"bash\", r#\"echo hi\"#);");
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let refused = Cell::read("let a = 1;\n%matplotlib inline").unwrap_err();
        assert_eq!(refused.line, 2);
        assert!(refused.message.contains("`%matplotlib`") && refused.message.contains("%timeit"));
        assert!(Cell::read("%%latex\nx").unwrap_err().message.contains("%%bash"));
        assert!(Cell::read("%timeit").unwrap_err().message.contains("expression"));
        assert!(Cell::read("%reset\nlet a = 1;").unwrap_err().message.contains("cell of its own"));
    }

    #[test]
    fn questions_and_dependencies_are_taken_out() {
        let cell =
            Cell::read("?Tensor\n??minai::conv::conv2d\n:dep rand = \"0.10\"\n:vars\nlet a = f()?;").unwrap();
        assert_eq!(cell.questions, [("Tensor".into(), false), ("minai::conv::conv2d".into(), true)]);
        assert_eq!(cell.dependencies, ["rand = \"0.10\""]);
        assert_eq!(cell.code, "\n\n\n:vars\nlet a = f()?;");
        assert_eq!(Cell::read("//| default_exp x\n:dep a").unwrap().code, "//| default_exp x\n");
    }
}
