//! Writes YAML that people read and Git compares: always the same bytes for the same value.
//!
//! Texts of several lines are block scalars, short lists and mappings of plain values stay on one line. This is ours, not
//! a crate's, because files in Git must not change when a dependency does. Reading it back gives the same value to the last
//! byte (a property test holds that).

use serde_json::{Map, Value};

/// The longest list or mapping that stays on one line, in bytes.
const LINE_BYTES: usize = 90;

/// Writes a mapping as a document; `block` names keys whose lists are never put on one line.
pub fn document(fields: &Map<String, Value>, block: &[&str]) -> String {
    let mut writer = Writer {
        out: String::new(),
        block,
    };
    writer.fields(fields, 0, false);
    writer.out
}

struct Writer<'a> {
    out: String,
    block: &'a [&'a str],
}

impl Writer<'_> {
    fn indent(&mut self, depth: usize) {
        self.out.extend(std::iter::repeat_n("  ", depth));
    }

    /// Writes fields; the first goes on the line that is begun already when they are an item's.
    fn fields(&mut self, fields: &Map<String, Value>, depth: usize, begun: bool) {
        for (at, (name, value)) in fields.iter().enumerate() {
            if at > 0 || !begun {
                self.indent(depth);
            }
            self.out.push_str(&scalar(name));
            self.out.push(':');
            self.value(name, value, depth);
        }
    }

    /// Writes what follows `name:`.
    fn value(&mut self, name: &str, value: &Value, depth: usize) {
        let line = if self.block.contains(&name) {
            None
        } else {
            on_one_line(value)
        };
        match (line, value) {
            (Some(line), _) => self.out.extend([" ", &line, "\n"]),
            (None, Value::Object(fields)) => {
                self.out.push('\n');
                self.fields(fields, depth + 1, false);
            }
            (None, Value::Array(items)) => {
                self.out.push('\n');
                items.iter().for_each(|item| self.item(item, depth + 1));
            }
            (None, Value::String(text)) => self.text(text, depth + 1),
            (None, other) => self.out.push_str(&format!(" {other}\n")),
        }
    }

    fn item(&mut self, item: &Value, depth: usize) {
        self.indent(depth);
        self.out.push('-');
        match (item, on_one_line(item)) {
            (Value::Object(fields), line) if line.is_none() || fields.contains_key("content") => {
                self.out.push(' ');
                self.fields(fields, depth + 1, true);
            }
            (_, Some(line)) => self.out.extend([" ", &line, "\n"]),
            (Value::Array(items), _) => {
                self.out.push('\n');
                items.iter().for_each(|item| self.item(item, depth + 1));
            }
            (Value::String(text), _) => self.text(text, depth + 1),
            (other, _) => self.out.push_str(&format!(" {other}\n")),
        }
    }

    /// Writes a text of several lines as a block scalar, every other one in quotes where it needs them.
    fn text(&mut self, text: &str, depth: usize) {
        let Some(header) = block_header(text) else {
            return self.out.extend([" ", &scalar(text), "\n"]);
        };
        self.out.extend([" ", header, "\n"]);
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            if !line.is_empty() {
                self.indent(depth);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }
}

/// Says how a block scalar of this text begins, unless it cannot be one.
fn block_header(text: &str) -> Option<&'static str> {
    let body = text.trim_end_matches('\n');
    let readable = body.contains('\n') && !text.chars().any(needs_escape) && !body.split('\n').all(str::is_empty);
    // A first line that begins with a space, or is empty, would hide how deep the text is indented.
    if !readable || text.starts_with([' ', '\n']) {
        return None;
    }
    // White space alone on the last line is not told from the end everywhere.
    if body.rsplit('\n').next().is_some_and(|last| last.trim().is_empty()) {
        return None;
    }
    Some(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    })
}

/// What a block scalar cannot hold, or editors and Git would not keep.
fn needs_escape(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(
            c,
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// Writes a scalar of one line: as it is where nothing can be mistaken, else in double quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if needs_escape(c) && u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if needs_escape(c) => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Words that some YAML reader takes for something else than a text.
const WORDS: [&str; 13] = [
    "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "nil", "none",
];

fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inside = |b: &u8| b.is_ascii_alphanumeric() || b"_-./ @()".contains(b);
    let words = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(inside) && !text.ends_with(' ') && !words
}

/// Writes a value on one line, if that is short and holds no text of several lines.
fn on_one_line(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => block_header(text).is_none().then(|| scalar(text)),
        Value::Array(items) if items.is_empty() => Some("[]".to_owned()),
        Value::Object(fields) if fields.is_empty() => Some("{}".to_owned()),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow_item).collect::<Option<_>>()?;
            short(format!("[{}]", items.join(", ")))
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| Some(format!("{}: {}", scalar(name), flow_item(value)?));
            let fields: Vec<String> = fields.iter().map(field).collect::<Option<_>>()?;
            short(format!("{{{}}}", fields.join(", ")))
        }
        other => Some(other.to_string()),
    }
}

/// One value inside of a line: scalars, and lists of them.
fn flow_item(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) if !fields.is_empty() => None,
        Value::Array(items) if items.iter().any(|item| item.is_array() || item.is_object()) => None,
        other => on_one_line(other),
    }
}

fn short(line: String) -> Option<String> {
    (line.len() <= LINE_BYTES).then_some(line)
}
