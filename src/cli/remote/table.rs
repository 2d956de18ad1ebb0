//! Tables for people, JSON for programs.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

/// Prints rows as a table, or the items they were made of as JSON.
pub fn print<const N: usize>(as_json: bool, items: &[Value], header: [&str; N], row: impl Fn(&Value) -> [String; N]) {
    if as_json {
        return println!("{}", json!({ "items": items }));
    }
    if items.is_empty() {
        return println!("nothing found");
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for item in items {
        table.add_row(row(item));
    }
    println!("{table}");
}
