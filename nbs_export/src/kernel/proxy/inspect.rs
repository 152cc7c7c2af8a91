//! Documentation, source, completion: what a front end asks while nothing is executed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::engine::Engine;
use super::lex;
use super::memory::{Item, Memory};
use super::session::Shared;
use crate::kernel::shim;

/// Answers an `inspect_request`: about the name at the cursor, and the function whose arguments it stands among.
pub async fn inspect(shared: &Shared, content: &Value) -> Value {
    let code = content["code"].as_str().unwrap_or_default();
    let cursor = byte_offset(code, content["cursor_pos"].as_u64().unwrap_or(0));
    let mut parts: Vec<Doc> = Vec::new();
    for end in ends(code, cursor) {
        if let Some(doc) = describe(shared, &code[..end]).await
            && !parts.iter().any(|p| p.plain == doc.plain)
        {
            parts.push(doc);
        }
    }
    if parts.is_empty() {
        return json!({ "status": "ok", "found": false, "data": {}, "metadata": {} });
    }
    let plain: Vec<&str> = parts.iter().map(|d| d.plain.as_str()).collect();
    let html: Vec<&str> = parts.iter().map(|d| d.html.as_str()).collect();
    let data = json!({ "text/plain": plain.join("\n\n"), "text/html": html.join("<hr>") });
    json!({ "status": "ok", "found": true, "data": data, "metadata": {} })
}

/// What `?name` shows; with the source for `??name`.
pub async fn page(shared: &Shared, name: &str, with_source: bool) -> Value {
    let mut doc = describe(shared, name).await;
    if doc.is_none()
        && let Some(path) = qualified(&shared.folder, name)
    {
        // A name of the course's crate that no cell has brought in yet.
        doc = describe(shared, &path).await;
    }
    let mut plain =
        doc.as_ref().map_or_else(|| format!("Nothing is known of `{name}`."), |d| d.plain.clone());
    let mut html = doc.as_ref().map_or_else(|| escape(&plain), |d| d.html.clone());
    if with_source {
        let found = match own(&shared.memory.borrow(), name) {
            Some((_, item)) => {
                Some((format!("cell [{}], line {}", item.cell, item.line), item.source.clone()))
            }
            None => doc.as_ref().and_then(|d| library_source(&shared.folder, &d.plain, name)),
        };
        match found {
            Some((place, source)) => {
                plain += &format!("\n\n{place}:\n{source}");
                html += &format!("<p>{}:</p><pre><code>{}</code></pre>", escape(&place), escape(&source));
            }
            None => plain += "\n\nIts source was not found.",
        }
    }
    json!({ "text/plain": plain, "text/html": html })
}

/// A description, as text and for a page.
#[derive(Clone, Debug, PartialEq)]
struct Doc {
    plain: String,
    html: String,
}

/// What is known of the name at the end of this code.
async fn describe(shared: &Shared, code: &str) -> Option<Doc> {
    let name = last_path(code);
    if let Some((_, item)) = own(&shared.memory.borrow(), name) {
        return Some(own_doc(item));
    }
    let variable = shared.memory.borrow().variables.get(name).cloned();
    let known = || {
        let plain = format!("let {name}: {}", variable.as_ref()?);
        Some(Doc { html: format!("<pre><code>{}</code></pre>", escape(&plain)), plain })
    };
    let engine: Option<Engine> = shared.engine.borrow().clone().filter(|_| shared.free.get());
    let Some(engine) = engine else { return known() };
    let question = json!({ "code": code, "cursor_pos": code.chars().count(), "detail_level": 0 });
    let answer = engine.ask("inspect_request", question).await.ok()?;
    if answer["found"] != true {
        return known();
    }
    let text = |kind: &str| answer["data"][kind].as_str().unwrap_or_default().to_owned();
    Some(Doc { plain: text("text/plain"), html: text("text/html") })
}

/// An item of the reader's own; a method also by its bare name.
fn own<'a>(memory: &'a Memory, path: &str) -> Option<(&'a String, &'a Item)> {
    let path = path.trim_start_matches("crate::");
    let last = path.rsplit(['.', ':']).next().unwrap_or(path);
    let method = |name: &str| name.rsplit_once("::").is_some_and(|(_, m)| m == last);
    memory.items.get_key_value(path).or_else(|| {
        if path.contains('.') {
            return memory.items.iter().find(|(name, _)| method(name));
        }
        (path == last).then(|| memory.items.get_key_value(last)).flatten()
    })
}

/// Documentation and signature from an item's text.
fn own_doc(item: &Item) -> Doc {
    let lines: Vec<&str> = item.source.lines().collect();
    let docs = lines.iter().map(|l| l.trim()).take_while(|l| l.starts_with("///") || l.starts_with('#'));
    let docs: Vec<&str> =
        docs.filter_map(|l| l.strip_prefix("///")).map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    let code = lines.iter().skip_while(|l| l.trim().starts_with("///") || l.trim().starts_with('#'));
    let code: Vec<&str> = code.copied().collect();
    let whole = code.join("\n");
    let signature =
        if item.is_type { whole.as_str() } else { whole.split_once('{').map_or(whole.as_str(), |s| s.0) };
    let signature = signature.trim();
    let place = format!("cell [{}], line {}", item.cell, item.line);
    let docs = docs.join("\n");
    Doc {
        plain: format!("{signature}\n\n{docs}\n\n{place}").replace("\n\n\n\n", "\n\n"),
        html: format!("<pre><code>{}</code></pre><p>{}</p><p>{place}</p>", escape(signature), escape(&docs)),
    }
}

/// Where the names end that a cursor asks about: the one it touches; then the function whose arguments it stands among.
fn ends(code: &str, cursor: usize) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let before = code[..cursor].chars().next_back().is_some_and(is_name);
    let after = code[cursor..].chars().next().is_some_and(is_name);
    let start = code[..cursor].trim_end_matches(is_name).len();
    let is_number = code[start..].starts_with(|c: char| c.is_ascii_digit());
    if (before || after) && !is_number {
        found.push(cursor + code[cursor..].find(|c| !is_name(c)).unwrap_or(code.len() - cursor));
    }
    let place = lex::places(code, &[cursor]).remove(0);
    let call = place.open.iter().rev().find(|(bracket, at)| {
        *bracket == '('
            && code[..*at].trim_end_matches('!').chars().next_back().is_some_and(|c| is_name(c) || c == '>')
    });
    if let Some((_, at)) = call {
        let mut end = code[..*at].trim_end_matches('!').len();
        // `f::<T>(`: the name stands before the generics.
        if code[..end].ends_with('>')
            && let Some(generics) = code[..end].rfind("::<")
        {
            end = generics;
        }
        found.push(end);
    }
    found
}

/// The path of names at the end of the code: `a::b`, `x.y`, `name`.
fn last_path(code: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
    let start =
        code.char_indices().rev().take_while(|(_, c)| is_part(*c)).last().map_or(code.len(), |(at, _)| at);
    code[start..].trim_start_matches([':', '.'])
}

/// Source of a library's item, with its place. `doc` is rust-analyzer's text: its first block names the module.
fn library_source(folder: &Path, doc: &str, name: &str) -> Option<(String, String)> {
    let module = doc.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("```"))?;
    let mut parts = module.split("::");
    let name = name.rsplit(['.', ':']).next()?;
    let first = parts.next()?;
    let root = crate_source(folder, first)?;
    let rest: Vec<&str> = parts.collect();
    let mut files = vec![root.join("lib.rs")];
    for depth in 1..=rest.len() {
        let path = rest[..depth].iter().fold(root.clone(), |p, m| p.join(m));
        files.push(path.with_extension("rs"));
        files.push(path.join("mod.rs"));
    }
    files.iter().rev().find_map(|file| find_item(file, name))
}

/// The folder `src` of a crate among those that cells use.
fn crate_source(folder: &Path, name: &str) -> Option<PathBuf> {
    let metadata: Value = serde_json::from_slice(&fs::read(folder.join(shim::METADATA)).ok()?).ok()?;
    let packages = metadata["packages"].as_array()?;
    let targets = packages.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten());
    // The wrapper is called minai too, but holds nothing.
    let sources = targets.filter(|t| t["name"].as_str().is_some_and(|n| n.replace('-', "_") == name));
    let paths = sources.filter_map(|t| Path::new(t["src_path"].as_str()?).parent().map(Path::to_owned));
    paths.max_by_key(|p| fs::read_dir(p).map_or(0, Iterator::count))
}

/// The path of a public item of `minai` that is asked about by its name alone.
fn qualified(folder: &Path, name: &str) -> Option<String> {
    let source = crate_source(folder, "minai")?;
    let mut files: Vec<PathBuf> = fs::read_dir(source).ok()?.flatten().map(|e| e.path()).collect();
    files.sort();
    files.retain(|f| f.extension().is_some_and(|e| e == "rs"));
    files.iter().find_map(|file| {
        let (_, text) = find_item(file, name)?;
        let public = text.lines().any(|l| l.trim_start().starts_with("pub "));
        let module = file.file_stem()?.to_str()?;
        public.then(|| format!("minai::{module}::{name}"))
    })
}

fn find_item(file: &Path, name: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(file).ok()?;
    if !text.contains(name) {
        return None;
    }
    let parsed = syn::parse_file(&text).ok()?;
    let mut finder = Finder { name, found: None };
    syn::visit::Visit::visit_file(&mut finder, &parsed);
    let range = finder.found?;
    let source = text.get(range.clone())?.to_owned();
    let line = text[..range.start].matches('\n').count() + 1;
    // An exported file says before each piece which cell it comes from.
    let marker = text[..range.start].lines().rev().find_map(|l| l.strip_prefix("// %% "));
    let file_name: PathBuf = file.components().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
    let place = match marker {
        Some(cell) => format!("{} (from {cell})", file_name.display()),
        None => format!("{}:{line}", file_name.display()),
    };
    Some((place, source))
}

struct Finder<'a> {
    name: &'a str,
    found: Option<std::ops::Range<usize>>,
}

impl<'ast> syn::visit::Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::spanned::Spanned as _;
        let name = match item {
            syn::Item::Fn(i) => Some(&i.sig.ident),
            syn::Item::Struct(i) => Some(&i.ident),
            syn::Item::Enum(i) => Some(&i.ident),
            syn::Item::Trait(i) => Some(&i.ident),
            syn::Item::Type(i) => Some(&i.ident),
            syn::Item::Const(i) => Some(&i.ident),
            syn::Item::Macro(i) => i.ident.as_ref(),
            _ => None,
        };
        if self.found.is_none() && name.is_some_and(|n| n == self.name) {
            self.found = Some(item.span().byte_range());
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        use syn::spanned::Spanned as _;
        if self.found.is_none() && item.sig.ident == self.name {
            self.found = Some(item.span().byte_range());
        }
    }
}

/// Answers a `complete_request`.
pub async fn complete(shared: &Shared, content: &Value) -> Value {
    let code = content["code"].as_str().unwrap_or_default();
    let position = content["cursor_pos"].as_u64().unwrap_or(0);
    let cursor = byte_offset(code, position);
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let start = code[..cursor]
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_name(*c))
        .last()
        .map_or(cursor, |(at, _)| at);
    let end = cursor + code[cursor..].find(|c| !is_name(c)).unwrap_or(code.len() - cursor);
    let prefix = &code[start..cursor];
    let mut found: Vec<(String, Value)> = Vec::new();
    let line = code[..start].rsplit('\n').next().unwrap_or_default();
    if line.trim() == "%" || line.trim() == "%%" {
        let magics = ["timeit", "time", "who", "whos", "reset", "pwd", "cd", "env", "lsmagic", "bash"];
        found = magics
            .iter()
            .filter(|m| m.starts_with(prefix))
            .map(|m| ((*m).to_owned(), json!("magic")))
            .collect();
    } else {
        let engine = shared.engine.borrow().clone().filter(|_| shared.free.get());
        if let Some(engine) = engine {
            // Without the rest of the name, which would be taken for a part of it.
            let cut = format!("{}{}", &code[..cursor], &code[end..]);
            let question = json!({ "code": cut, "cursor_pos": position });
            if let Ok(answer) = engine.ask("complete_request", question).await {
                found = matches(&answer, prefix);
            }
        }
        let simple = !code[..start].ends_with(['.', ':']);
        if found.is_empty() && simple && !prefix.is_empty() {
            let memory = shared.memory.borrow();
            let names = memory.variables.keys().chain(memory.items.keys());
            found = names
                .filter(|n| n.starts_with(prefix) && !n.contains(':'))
                .map(|n| (n.clone(), json!("instance")))
                .collect();
        }
    }
    found.sort_by_key(|(name, _)| rank(name));
    found.dedup_by(|a, b| a.0 == b.0);
    let (from, to) = (code[..start].chars().count(), code[..end].chars().count());
    let types: Vec<Value> = found
        .iter()
        .map(|(text, kind)| json!({ "text": text, "type": kind, "start": from, "end": to }))
        .collect();
    let matches: Vec<&String> = found.iter().map(|(text, _)| text).collect();
    json!({
        "status": "ok", "matches": matches, "cursor_start": from, "cursor_end": to,
        "metadata": { "_jupyter_types_experimental": types },
    })
}

/// Names first that a reader is likely to want: not those with an underscore, which are private or generated.
fn rank(name: &str) -> (bool, String) {
    (name.starts_with('_'), name.to_lowercase())
}

fn matches(answer: &Value, prefix: &str) -> Vec<(String, Value)> {
    let texts = answer["matches"].as_array().into_iter().flatten();
    let kinds = answer["metadata"]["_jupyter_types_experimental"].as_array();
    let kind = |k: usize| kinds.and_then(|a| a.get(k)).map_or(Value::Null, |v| v["type"].clone());
    let all = texts.enumerate().filter_map(|(k, t)| Some((t.as_str()?.to_owned(), kind(k))));
    let internal = |t: &str| {
        t.starts_with("evcxr_") || t.starts_with("nbs_") || t.starts_with("Evcxr") || t == "ShowDebug"
    };
    all.filter(|(t, _)| t.starts_with(prefix) && !internal(t)).collect()
}

/// Answers an `is_complete_request`: may this be executed, or does more follow?
pub fn is_complete(code: &str) -> Value {
    let place = lex::end(code);
    let last = code.lines().last().unwrap_or_default();
    // An empty line ends what is typed, whatever is open.
    if (place.inside || !place.open.is_empty()) && !(last.trim().is_empty() && code.ends_with("\n\n")) {
        let indent = "    ".repeat(place.open.len());
        return json!({ "status": "incomplete", "indent": indent });
    }
    let is_rust = !code.lines().any(|l| l.trim_start().starts_with([':', '%', '!', '?']));
    let parsed = syn::parse_str::<syn::Block>(&format!("{{\n{code}\n}}"));
    match parsed {
        Err(error) if is_rust => {
            let message = error.to_string();
            let more = message.contains("unexpected end of input") || message.contains("unexpected end of");
            json!({ "status": if more { "incomplete" } else { "invalid" }, "indent": "" })
        }
        _ => json!({ "status": "complete" }),
    }
}

/// The byte at which the character with this number begins.
fn byte_offset(code: &str, position: u64) -> usize {
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    code.char_indices().nth(position).map_or(code.len(), |(at, _)| at)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths asked about at the mark `§`.
    fn asked(marked: &str) -> Vec<String> {
        let at = marked.find('§').unwrap();
        let code = marked.replace('§', "");
        ends(&code, at).into_iter().map(|end| last_path(&code[..end]).to_owned()).collect()
    }

    #[test]
    fn a_cursor_asks_about_its_name_and_its_call() {
        assert_eq!(asked("conv§2d"), ["conv2d"]);
        assert_eq!(asked("minai::conv::conv2d§"), ["minai::conv::conv2d"]);
        assert_eq!(asked("x.resh§ape(3)"), ["x.reshape"]);
        assert_eq!(asked("f(1, § 2)"), ["f"]);
        assert_eq!(asked("f(1, abc§d, 2)"), ["abcd", "f"]);
        assert_eq!(asked("f::<u8>(§)"), ["f"]);
        assert_eq!(asked("vec![1, (§2)]"), Vec::<String>::new());
        assert_eq!(asked("println!(\"{}\", §x)"), ["x", "println"]);
    }

    #[test]
    fn documentation_of_cells_is_kept() {
        let mut memory = Memory::default();
        let code = "/// Twice `x`.\n///\n/// Really.\nfn twice(x: i32) -> i32 { 2 * x }\nstruct P { a: i32 }\nimpl P {\n    /// Its a.\n    fn a(&self) -> i32 { self.a }\n}";
        memory.begin(3, code);
        memory.define(3, code);
        let doc = own_doc(own(&memory, "twice").unwrap().1);
        assert_eq!(doc.plain, "fn twice(x: i32) -> i32\n\nTwice `x`.\n\nReally.\n\ncell [3], line 1");
        assert!(own_doc(own(&memory, "p.a").unwrap().1).plain.starts_with("fn a(&self) -> i32"));
        assert!(own_doc(own(&memory, "P").unwrap().1).plain.starts_with("struct P { a: i32 }"));
        assert_eq!(own(&memory, "other"), None);
    }

    #[test]
    fn completeness_is_told() {
        let status = |code: &str| is_complete(code)["status"].as_str().unwrap().to_owned();
        for complete in
            ["", "1 + 2", "let a = 1;", "fn f() {}", "%who", "!ls", ":vars", "// (", "for i in 0..2 { f(i) }"]
        {
            assert_eq!(status(complete), "complete", "{complete}");
        }
        for incomplete in ["fn f() {", "f(", "let s = \"", "let a = ", "/* "] {
            assert_eq!(status(incomplete), "incomplete", "{incomplete}");
        }
        assert_eq!(status("let let = 3;"), "invalid");
        assert_eq!(is_complete("fn f() {\n    if x {")["indent"], "        ");
    }
}
