//! Dependencies point down only (the crate's map), as far as `crate::` lines show.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from top to bottom; a room may use those of later rows, not those of its own or earlier ones.
const RANKS: &[&[&str]] = &[
    &["cli"],
    &["app"],
    // They meet at the snapshot, and never import each other.
    &["proxy", "admin"],
    &["snapshot", "mock_provider"],
    &["telemetry", "registry", "upstream", "import"],
    &["provider", "spool", "config", "tokenizer", "files"],
    &["domain", "metrics"],
];

/// What pure rooms must not know: IO, clocks, randomness.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "std::fs",
    "SystemTime",
    "Instant",
    "rand::",
    "std::net",
    "std::env",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.extension() {
            _ if entry.is_dir() => found.extend(sources(&entry)),
            Some(extension) if extension == "rs" => found.push(entry),
            _ => {}
        }
    }
    found
}

/// The code of each file of `src`, comment lines left out, with the room it is in.
fn files() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&src).unwrap().to_owned();
        let room = inside.iter().next().unwrap().to_str().unwrap();
        let room = room.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        (room, inside, code.collect::<Vec<_>>().join("\n"))
    };
    sources(&src).into_iter().map(read).collect()
}

fn rank(room: &str) -> usize {
    let rank = RANKS.iter().position(|rank| rank.contains(&room));
    rank.unwrap_or_else(|| panic!("room {room:?} has no rank here, give it one"))
}

/// The rooms that code names behind `crate::`, also in braces.
fn used(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut rooms = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        let rest = &code[at + mark.len()..];
        match rest.strip_prefix('{') {
            None => rooms.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let items = list.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth <= 0 && matches!(c, ',' | '}')
                });
                rooms.extend(items.take_while(|item| !item.contains(';')).map(word));
            }
        }
    }
    // A type of the crate's root is in no room.
    rooms.retain(|room| room.starts_with(|c: char| c.is_ascii_lowercase()));
    rooms
}

#[test]
fn rooms_use_only_those_below_them() {
    let mut wrong = Vec::new();
    for (room, path, code) in files() {
        if matches!(room.as_str(), "main" | "lib") {
            continue;
        }
        for used in used(&code) {
            if used != room && rank(&used) <= rank(&room) {
                wrong.push(format!("{}: {room} uses {used}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "dependencies that do not point down:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn used_rooms_are_found_in_every_form() {
    let code = "use crate::config::{Config, Sink};\nuse crate::{\n    admin::{self, AdminState},\n    proxy,\n};\nfn f() { crate::app::go() }\nuse crate::Thing;";
    assert_eq!(used(code), ["config", "admin", "proxy", "app"]);
}

#[test]
fn main_uses_the_command_line_alone() {
    let (_, _, code) = files().into_iter().find(|(room, ..)| room == "main").unwrap();
    let uses: Vec<&str> = code.split("promptgate::").skip(1).collect();
    assert!(
        !uses.is_empty() && uses.iter().all(|rest| rest.starts_with("cli::")),
        "{code}"
    );
}

#[test]
fn pure_rooms_know_no_io_clock_or_randomness() {
    let pure = |room: &str| matches!(room, "domain" | "files" | "import");
    for (_, path, code) in files().into_iter().filter(|(room, ..)| pure(room)) {
        for word in IMPURE {
            assert!(!code.contains(word), "{} knows {word}", path.display());
        }
    }
}

#[test]
fn every_room_has_a_rank() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(src).unwrap();
    let rooms = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let declared: Vec<&str> = rooms.collect();
    assert!(declared.len() > 5);
    for room in declared {
        rank(room);
    }
}
