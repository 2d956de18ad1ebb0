//! A difference as text for people: `[-gone-]` and `{+new+}`, as `git diff --word-diff` writes it.

use std::fmt::{Display, Formatter, Result};

use super::{ChangeKind, ContentDiff, Entry, Hunk};

impl Display for ContentDiff {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for message in self
            .messages
            .iter()
            .filter(|message| message.change != ChangeKind::Same)
        {
            let at = message.to.or(message.from).unwrap_or_default();
            let name = format!("messages[{at}] {}", message.kind);
            heading(f, message.change, &name)?;
            text(f, &message.text)?;
            for field in &message.fields {
                entry(f, &format!("messages[{at}]"), field)?;
            }
        }
        for partial in &self.partials {
            heading(f, partial.change, &partial.name)?;
            text(f, &partial.text)?;
        }
        for (section, entries) in [
            ("", &self.settings),
            ("variables", &self.variables),
            ("parameters", &self.parameters),
            ("tools", &self.tools),
        ] {
            for field in entries {
                entry(f, section, field)?;
            }
        }
        for name in &self.overrides_added {
            writeln!(f, "+ overrides: {name}")?;
        }
        for name in &self.overrides_removed {
            writeln!(f, "- overrides: {name}")?;
        }
        for name in &self.reordered {
            writeln!(f, "~ {name}: the same in another order")?;
        }
        Ok(())
    }
}

fn sign(change: ChangeKind) -> char {
    match change {
        ChangeKind::Same => ' ',
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Changed => '~',
    }
}

fn heading(f: &mut Formatter<'_>, change: ChangeKind, name: &str) -> Result {
    writeln!(f, "{} {name}", sign(change))
}

/// Indented lines, with the words that changed marked.
fn text(f: &mut Formatter<'_>, hunks: &[Hunk]) -> Result {
    let mut marked = String::new();
    let whole = hunks.iter().all(|hunk| hunk.op == hunks[0].op);
    for hunk in hunks {
        match hunk.op {
            ChangeKind::Removed if !whole => marked.extend(["[-", &hunk.text, "-]"]),
            ChangeKind::Added if !whole => marked.extend(["{+", &hunk.text, "+}"]),
            _ => marked.push_str(&hunk.text),
        }
    }
    for line in marked.lines() {
        writeln!(f, "    {line}")?;
    }
    Ok(())
}

fn entry(f: &mut Formatter<'_>, section: &str, entry: &Entry) -> Result {
    let dot = if section.is_empty() { "" } else { "." };
    write!(f, "{} {section}{dot}{}: ", sign(entry.change), entry.name)?;
    match entry.change {
        ChangeKind::Removed => writeln!(f, "{}", entry.from),
        ChangeKind::Added => writeln!(f, "{}", entry.to),
        ChangeKind::Same | ChangeKind::Changed => writeln!(f, "{} → {}", entry.from, entry.to),
    }
}
