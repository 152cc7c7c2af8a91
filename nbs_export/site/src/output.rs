//! What a cell has put out.

use base64::Engine as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::check;
use crate::export::Files;
use crate::markdown::escape;
use crate::picture;

/// The outputs of a cell as HTML. Pictures become files.
pub fn render(outputs: &[Value], files: &mut Files) -> String {
    outputs.iter().map(|output| one(output, files)).collect()
}

fn one(output: &Value, files: &mut Files) -> String {
    match output["output_type"].as_str() {
        Some("stream") => text_block("out", &joined(&output["text"])),
        Some("error") => {
            let lines = output["traceback"]
                .as_array()
                .map(|all| all.iter().map(joined).collect::<Vec<_>>().join("\n"));
            text_block("out failed", &lines.unwrap_or_default())
        }
        Some("display_data" | "execute_result") => shown(&output["data"], files),
        _ => String::new(),
    }
}

fn shown(data: &Value, files: &mut Files) -> String {
    if let Some(html) = data.get("text/html") {
        return format!(
            "<div class=\"shown wide\" tabindex=\"0\">{}</div>\n",
            with_files(&joined(html), files)
        );
    }
    if let Some(png) = data.get("image/png") {
        let alt = data.get("text/plain").map(joined).unwrap_or_default();
        let source = format!("data:image/png;base64,{}", joined(png).replace('\n', ""));
        let html = format!("<img alt=\"{}\" src=\"{source}\">", escape(&alt));
        return format!("<div class=\"shown\">{}</div>\n", with_files(&html, files));
    }
    data.get("text/plain").map(|text| text_block("out", &joined(text))).unwrap_or_default()
}

fn text_block(class: &str, text: &str) -> String {
    let text = without_colours(text);
    match text.trim_end() {
        "" => String::new(),
        text => format!("<pre class=\"{class}\" tabindex=\"0\">{}</pre>\n", escape(text)),
    }
}

/// Pictures inside a page make it slow to open: each goes into a file of its own, and pictures that are there twice into one.
fn with_files(html: &str, files: &mut Files) -> String {
    const BEGINS: &str = "src=\"data:image/";
    let mut parts = html.split(BEGINS);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let picture = part.split_once('"').and_then(|(address, rest)| {
            let (kind, bytes) = match address.split_once(";base64,") {
                Some((kind, data)) => (kind, base64::engine::general_purpose::STANDARD.decode(data).ok()?),
                None => {
                    let (kind, data) = address.split_once(";utf8,")?;
                    (kind, check::plain(data).into_bytes())
                }
            };
            let bytes = match kind {
                "svg+xml" => picture::smaller_inside(&String::from_utf8(bytes).ok()?).into_bytes(),
                _ => bytes,
            };
            let tag = out.rfind('<').map_or("", |at| &out[at..]).to_owned() + rest.split('>').next()?;
            let mut attributes = String::from("loading=\"lazy\"") + &picture::missing_size(&tag, &bytes);
            // The script adds a button that stops what moves, and does not let it begin where nothing shall move.
            if let Some(still) = picture::still(&bytes) {
                attributes += &format!(" data-still=\"{}\"", files.add(&name(kind, &still), still));
            }
            let path = files.add(&name(kind, &bytes), bytes);
            Some((format!("{attributes} src=\"{path}\""), rest))
        });
        match picture {
            Some((attributes, rest)) => out += &format!("{attributes}{rest}"),
            None => out += &format!("{BEGINS}{part}"),
        }
    }
    out
}

fn name(kind: &str, bytes: &[u8]) -> String {
    let digest: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}.{}", kind.split('+').next().unwrap_or(kind))
}

/// Text of a notebook: a string, or a list of lines.
fn joined(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// Text without what colours a terminal's.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| out + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_becomes_one_file_however_often_it_is_shown() {
        let mut files = Files::default();
        let html = "<img width=\"3\" alt=\"a\" src=\"data:image/svg+xml;base64,PHN2Zy8+\">";
        let outputs = json!([{ "output_type": "display_data", "data": { "text/html": html } },
            { "output_type": "execute_result", "data": { "text/html": [html] } }]);
        let out = render(outputs.as_array().unwrap(), &mut files);
        assert_eq!(files.all.len(), 1);
        assert_eq!(files.all.values().next().unwrap(), b"<svg/>");
        assert!(out.matches(".svg\"").count() == 2 && !out.contains("base64"), "{out}");
    }

    #[test]
    fn a_picture_written_as_text_becomes_a_file_too() {
        let mut files = Files::default();
        let html = "<img alt=\"\" src=\"data:image/svg+xml;utf8,%3Csvg width='1' height='2'/%3E\">";
        let outputs = json!([{ "output_type": "display_data", "data": { "text/html": html } }]);
        render(outputs.as_array().unwrap(), &mut files);
        assert_eq!(files.all.values().next().unwrap(), b"<svg width='1' height='2'/>");
    }

    #[test]
    fn text_is_escaped_and_loses_its_colours() {
        let outputs = json!([{ "output_type": "stream", "name": "stdout", "text": ["a < b\n", "\u{1b}[31mred\u{1b}[0m"] }]);
        let out = render(outputs.as_array().unwrap(), &mut Files::default());
        assert!(out.contains("a &lt; b\nred</pre>"), "{out}");
    }
}
