//! What the search looks through: a script with a list, so that it works from a folder without a server.

use serde_json::json;

use crate::markdown::escape;

/// The passages of all pages.
#[derive(Debug, Default)]
pub struct Index(Vec<serde_json::Value>);

impl Index {
    pub fn add(&mut self, page: &str, title: &str, passages: &[(String, String, String)]) {
        for (anchor, heading, text) in passages {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.0.push(json!([format!("{page}.html#{anchor}"), title, escape(heading), text]));
        }
    }

    pub fn script(&self) -> String {
        format!("window.minaiIndex = {};\n", serde_json::Value::from(self.0.clone()))
    }
}
