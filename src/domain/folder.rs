//! Folders: the first segments of prompt ids. They exist as long as there is a prompt in them.

use std::collections::BTreeMap;

/// A folder directly inside another one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Folder {
    /// Without a slash at its end: `support/eu`.
    pub folder: String,
    /// How many prompts are in it, at any depth.
    pub prompts: usize,
}

/// What is inside a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// By name.
    pub folders: Vec<Folder>,
    /// Prompts directly inside.
    pub direct: usize,
    /// Prompts at any depth.
    pub total: usize,
}

/// Brings a folder into the form that ids begin with: `support/`, or nothing for the top.
pub fn prefix(folder: &str) -> String {
    match folder.trim_matches('/') {
        "" => String::new(),
        inside => format!("{inside}/"),
    }
}

/// Counts what is inside the folder that ids of which begin with `prefix`.
pub fn contents<'a>(ids: impl IntoIterator<Item = &'a str>, prefix: &str) -> Contents {
    let mut contents = Contents::default();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for rest in ids.into_iter().filter_map(|id| id.strip_prefix(prefix)) {
        contents.total += 1;
        match rest.split_once('/') {
            Some((folder, _)) => *folders.entry(folder).or_default() += 1,
            None => contents.direct += 1,
        }
    }
    contents.folders = folders
        .into_iter()
        .map(|(name, prompts)| Folder {
            folder: format!("{prefix}{name}"),
            prompts,
        })
        .collect();
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_counted_at_any_depth_and_prompts_directly_inside() {
        let ids = [
            "support",
            "support/greet",
            "support/eu/de/greet",
            "support/eu/fr",
            "supporters/a",
            "z",
        ];
        let inside = contents(ids, &prefix("/support/"));
        let eu = Folder {
            folder: "support/eu".to_owned(),
            prompts: 2,
        };
        assert_eq!((inside.folders, inside.direct, inside.total), (vec![eu], 1, 3));
        let top = contents(ids, &prefix(""));
        let names: Vec<&str> = top.folders.iter().map(|folder| folder.folder.as_str()).collect();
        assert_eq!((names, top.direct, top.total), (vec!["support", "supporters"], 2, 6));
    }
}
