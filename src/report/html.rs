//! The report as one HTML file that needs nothing else: no network, no other file, no server.
//!
//! Rust writes the frame, the headline and the model; the script in `assets/` draws the rest from the model.
//! Names and strings come from the heap of an app and are hostile until shown otherwise:
//!
//! - the policy in the page's head allows the one script and the one style by their hashes and nothing else,
//!   no network, no other source, and no way from a string to markup (`require-trusted-types-for`);
//! - the model lies in a script element of a type that no browser executes, with `<`, `>`, `&` and the line
//!   separators as JSON escapes, so that no string can end the element;
//! - the script makes elements and sets text; it parses no markup.
//!
//! The file is bounded: lists and strings beyond [`limit_of`] and [`MAX_STRING_CHARS`] are cut, and where a list was
//! cut the page says so. It decides nothing about the heap; that is done in `heap`.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::history::History;
use super::{DominatorTree, Output, Report};

/// What `--top` should be for a page: its tables sort and filter, so more rows are of use than in a terminal.
pub const TOP: usize = 500;

/// Characters of any one string. A path or a function name is shorter; a heap string is shown by its beginning.
const MAX_STRING_CHARS: usize = 600;
/// Lists that have no limit of their own.
const MAX_ITEMS: usize = 600;
/// Depth to which a finding of another version may nest.
const MAX_DEPTH: usize = 24;

const STYLE: &str = include_str!("assets/report.css");
/// What all pages need; one script is made of these and of the page's own.
const SHARED: [&str; 4] = [
    include_str!("assets/page.js"),
    include_str!("assets/table.js"),
    include_str!("assets/timeline.js"),
    include_str!("assets/start.js"),
];
const HEAP: [&str; 2] = [include_str!("assets/icicle.js"), include_str!("assets/heap.js")];
const HISTORY: [&str; 1] = [include_str!("assets/history.js")];
const STATUS: [&str; 1] = [include_str!("assets/status.js")];
const TOKEN: [&str; 2] = [include_str!("assets/page.js"), include_str!("assets/token.js")];
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
%3Cpath d='M8 1C6 5 3.5 7 3.5 10a4.5 4.5 0 0 0 9 0C12.5 7 10 5 8 1z' fill='%232f6fb4'/%3E%3C/svg%3E";

/// Writes a page.
#[derive(Debug, Clone, Copy)]
pub struct Html;

impl Output for Html {
    fn write(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let (title, headline, model) = match report {
            Report::Analysis(analysis) => (
                file_name(&analysis.snapshot.file).to_owned(),
                headline(&analysis.suspects, "Nothing stands out in this heap"),
                with_tree(report, &analysis.tree)?,
            ),
            Report::Comparison(comparison) => {
                let names: Vec<&str> =
                    comparison.snapshots.iter().map(|snapshot| file_name(&snapshot.file)).collect();
                (
                    names.join(" → "),
                    headline(&comparison.suspects, "Nothing grew that looks like a leak"),
                    with_tree(report, &comparison.tree)?,
                )
            }
        };
        write_page(&title, &headline, model, &HEAP.concat(), out)
    }
}

/// Writes the page of an evidence directory.
///
/// # Errors
/// Whatever the writer answers.
pub fn write_history(history: &History, out: &mut dyn Write) -> io::Result<()> {
    let mut model = serde_json::to_value(history)?;
    if let Value::Object(fields) = &mut model {
        fields.insert("kind".to_owned(), "history".into());
    }
    write_page(&history.directory, &history.headline(), model, &HISTORY.concat(), out)
}

/// A page that is not written to a file but served: what it shows it fetches from where it came from.
#[derive(Clone, Debug)]
pub struct Served {
    /// The document. It holds nothing of any process.
    pub html: String,
    /// Its content-security policy, for the header of that name.
    pub policy: String,
}

/// The status page.
pub fn status_page() -> Served {
    served("leakguard", &[SHARED.concat(), STATUS.concat()].concat())
}

/// The page that asks for the token.
pub fn token_page() -> Served {
    served("Token", &TOKEN.concat())
}

fn served(title: &str, sources: &str) -> Served {
    let script = program(sources);
    let style = compact(STYLE);
    let policy = format!("{}; connect-src 'self'; frame-ancestors 'none'", policy(&script, &style));
    let html = format!(
        "{}<title>{}</title>\n<style>{style}</style>\n</head>\n<body>\n\
         <noscript><p>This page is drawn by the script in it. `?format=json` is the same as JSON.</p></noscript>\n\
         <div id=\"page\"></div>\n<script>{script}</script>\n</body>\n</html>\n",
        document_head(None),
        escaped(title)
    );
    Served { html, policy }
}

fn headline(suspects: &[super::Suspect], none: &str) -> String {
    suspects.first().map_or_else(|| none.to_owned(), |suspect| suspect.sentence.clone())
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The model with its tree as columns: a third of the size, and quicker to read.
fn with_tree(report: &Report, tree: &DominatorTree) -> io::Result<Value> {
    let mut model = serde_json::to_value(report)?;
    if let Value::Object(fields) = &mut model {
        fields.insert("tree".to_owned(), columns(tree));
    }
    Ok(model)
}

fn columns(tree: &DominatorTree) -> Value {
    // Parents stand before children, so cutting the end leaves a tree.
    let nodes = tree.nodes.get(..limit_of("tree").min(tree.nodes.len())).unwrap_or_default();
    json!({
        "parent": nodes.iter().map(|node| node.parent.map_or(-1, i64::from)).collect::<Vec<_>>(),
        "label": nodes.iter().map(|node| node.label.as_str()).collect::<Vec<_>>(),
        "id": nodes.iter().map(|node| node.id).collect::<Vec<_>>(),
        "count": nodes.iter().map(|node| node.count).collect::<Vec<_>>(),
        "shallow": nodes.iter().map(|node| node.shallow_bytes).collect::<Vec<_>>(),
        "retained": nodes.iter().map(|node| node.retained_bytes).collect::<Vec<_>>(),
        "total": tree.nodes.len(),
    })
}

/// Items of the list called `name` that a page holds.
fn limit_of(name: &str) -> usize {
    match name {
        "tree" | "parent" | "label" | "id" | "shallow" | "retained" => 4_000,
        "classes" => 2_000,
        "suspects" => 50,
        "findings" | "path" | "item_sites" => 200,
        _ => MAX_ITEMS,
    }
}

/// Cuts strings and lists to what a page holds, and notes the full length of each list that was cut.
fn bound(value: &mut Value, name: &str, depth: usize, cut: &mut Map<String, Value>) {
    if depth > MAX_DEPTH {
        *value = Value::Null;
        return;
    }
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(MAX_STRING_CHARS) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => {
            let limit = limit_of(name);
            if items.len() > limit {
                cut.insert(name.to_owned(), items.len().into());
                items.truncate(limit);
            }
            for item in items {
                bound(item, name, depth + 1, cut);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                bound(field, name, depth + 1, cut);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn write_page(
    title: &str,
    headline: &str,
    mut model: Value,
    own: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut cut = Map::new();
    bound(&mut model, "", 0, &mut cut);
    if let Value::Object(fields) = &mut model {
        fields.insert("cut".to_owned(), Value::Object(cut));
        fields.insert("headline".to_owned(), headline.into());
        fields.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    let script = program(&[&SHARED.concat(), own].concat());
    let style = compact(STYLE);
    let policy = policy(&script, &style);
    let (title, sentence) = (escaped(title), escaped(headline));
    write!(
        out,
        "{}<title>{title} · leakguard</title>\n<style>{style}</style>\n</head>\n<body>\n\
         <noscript><h1>{sentence}</h1><p>The evidence is drawn by the script in this file.</p></noscript>\n\
         <div id=\"page\"></div>\n<script type=\"application/json\" id=\"model\">",
        document_head(Some(&policy))
    )?;
    out.write_all(inert_json(&model)?.as_bytes())?;
    write!(out, "</script>\n<script>{script}</script>\n</body>\n</html>\n")
}

/// One script of several sources, with no name of its own in the page.
fn program(sources: &str) -> String {
    format!("(() => {{\n'use strict';\n{}}})();\n", compact(sources))
}

/// What a page may do: run its one script and use its one style, and make markup of no string.
fn policy(script: &str, style: &str) -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source_hash(script),
        source_hash(style)
    )
}

/// The beginning of a document, up to its title; a policy that comes as a header is not repeated in it.
fn document_head(policy: Option<&str>) -> String {
    let policy = policy.map_or_else(String::new, |policy| {
        format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n")
    });
    let referrer = if policy.is_empty() { "same-origin" } else { "no-referrer" };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n{policy}\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"{referrer}\">\n\
         <link rel=\"icon\" href=\"{ICON}\">\n"
    )
}

/// A source without indentation and without the lines that are comments: a third of it. The sources keep to this: no
/// text over several lines, and an operator ends a line and begins none.
fn compact(source: &str) -> String {
    let lines = source.lines().map(str::trim);
    let lines = lines.map(without_types);
    let kept = lines.filter(|line| {
        !line.is_empty() && !["//", "/*", "*"].iter().any(|mark| line.starts_with(mark))
    });
    kept.fold(String::with_capacity(source.len()), |text, line| text + &line + "\n")
}

/// A line without the type annotations within it (`/** @type {any} */`).
fn without_types(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::with_capacity(line.len());
    while let Some((before, after)) = rest.split_once("/** @type") {
        let Some((_, after)) = after.split_once("*/") else { break };
        kept.push_str(before);
        rest = after.trim_start();
    }
    kept + rest
}

/// JSON that can lie in a script element and in a JavaScript program: nothing in it ends or begins markup.
fn inert_json(value: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut inert = String::with_capacity(text.len() + text.len() / 16);
    for char in text.chars() {
        match char {
            // Outside strings JSON has none of these.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{7f}'..='\u{9f}' => {
                let _ = write!(inert, "\\u{:04x}", u32::from(char));
            }
            _ => inert.push(char),
        }
    }
    Ok(inert)
}

/// Text as HTML content or attribute.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars().take(MAX_STRING_CHARS) {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ if char.is_control() => html.push(' '),
            _ => html.push(char),
        }
    }
    html
}

/// The source expression that allows exactly this text (CSP level 3, 2.3.1).
fn source_hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for digit in 0..4 {
            if digit <= group.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(model: Value) -> String {
        let mut out = Vec::new();
        write_page("title", "headline", model, &HISTORY.concat(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn embedded(html: &str) -> Value {
        let (_, rest) = html.split_once("id=\"model\">").unwrap();
        let (model, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(model).unwrap()
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_assets_hold_nothing_that_ends_their_element() {
        let shared = SHARED.concat();
        let pages = [HEAP.concat(), HISTORY.concat(), STATUS.concat()];
        let scripts = pages.map(|own| [shared.as_str(), &own].concat());
        for script in scripts.into_iter().chain([TOKEN.concat()]) {
            let script = compact(&script);
            assert!(!script.contains("</") && !script.contains("<!--"));
            assert!(!script.contains("/*") && !script.contains("innerHTML"));
        }
        assert!(!compact(STYLE).contains('<') && !STYLE.contains("url("));
    }

    #[test]
    fn a_served_page_runs_under_its_policy_and_holds_no_model() {
        for page in [status_page(), token_page()] {
            let (_, script) = page.html.split_once("<script>").unwrap();
            let (script, rest) = script.split_once("</script>").unwrap();
            assert!(!rest.contains("<script"));
            assert!(page.policy.contains(&format!("script-src '{}'", source_hash(script))));
            assert!(page.policy.contains("default-src 'none'"));
            assert!(page.policy.contains("frame-ancestors 'none'"));
            assert!(!page.html.contains("http-equiv") && !page.html.contains("id=\"model\""));
        }
    }

    #[test]
    fn only_comments_and_indentation_are_left_out() {
        let source = "/**\n * What it does.\n *\n */\n  const a = /** @type {any} */ (b) * 2; // kept\n\n// gone\nreturn a;\n";
        assert_eq!(compact(source), "const a = (b) * 2; // kept\nreturn a;\n");
    }

    #[test]
    fn long_lists_and_strings_are_cut_and_the_page_is_told() {
        let html = page(json!({ "classes": vec![0; 5_000], "text": "é".repeat(5_000) }));
        let model = embedded(&html);
        assert_eq!(model["classes"].as_array().map(Vec::len), Some(limit_of("classes")));
        assert_eq!(model["cut"]["classes"], 5_000);
        assert_eq!(
            model["text"].as_str().map(|text| text.chars().count()),
            Some(MAX_STRING_CHARS + 1)
        );
    }

    #[test]
    fn a_finding_that_nests_without_end_is_cut() {
        let mut value = json!(1);
        for _ in 0..100 {
            value = json!([value]);
        }
        let html = page(json!({ "findings": value }));
        assert!(html.contains("[[[[null]]]]"), "{html}");
    }

    #[test]
    fn the_title_and_the_headline_are_escaped() {
        let mut out = Vec::new();
        let attack = "</title><script>alert(1)</script>\"'&";
        write_page(attack, attack, json!({}), "", &mut out).unwrap();
        let html = String::from_utf8(out).unwrap();
        assert_eq!(html.matches("<script").count(), 2);
        assert!(
            html.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;")
        );
    }

    proptest! {
        #[test]
        fn whatever_a_string_holds_it_arrives_and_ends_no_element(text in any::<String>(), key in any::<String>()) {
            let text: String = text.chars().take(MAX_STRING_CHARS).collect();
            let inert = inert_json(&json!({ key.clone(): text.clone() })).unwrap();
            let alive = inert.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
            prop_assert!(!alive);
            let back: Value = serde_json::from_str(&inert).unwrap();
            prop_assert_eq!(back, json!({ key: text }));
        }
    }
}
