//! Other systems' plain template languages into ours.
//!
//! Their text is data here: whatever Jinja would take for a tag (`{%`, `{#`, a `{{` that is no variable) is written so that it
//! comes out as it was.

/// A template of ours under construction.
#[derive(Debug, Default)]
pub struct Template {
    out: String,
}

impl Template {
    /// Goes on with what was made already.
    pub fn continued(out: String) -> Self {
        Self { out }
    }

    /// Appends text that comes out as it is.
    pub fn literal(&mut self, text: &str) {
        let mut rest = text;
        // What is there already may end in a brace that opens a tag with the first character.
        if self.out.ends_with('{') && rest.starts_with(['{', '%', '#']) {
            self.guard_brace();
        }
        while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|tag| rest.find(tag)).min() {
            self.out.push_str(&rest[..at]);
            self.out.push_str("{{ '{' }}");
            rest = &rest[at + 1..];
        }
        self.out.push_str(rest);
    }

    /// Appends a variable or another expression.
    pub fn expression(&mut self, expression: &str) {
        self.guard_brace();
        self.out.push_str(&format!("{{{{ {expression} }}}}"));
    }

    /// Appends a tag: `if x`.
    pub fn tag(&mut self, tag: &str) {
        self.guard_brace();
        self.out.push_str(&format!("{{% {tag} %}}"));
    }

    /// Keeps a brace that is text from making one tag with what follows.
    fn guard_brace(&mut self) {
        if self.out.ends_with('{') {
            self.out.pop();
            self.out.push_str("{{ '{' }}");
        }
    }

    /// Takes white space off the end, as far back as the last line break or tag.
    pub fn trim_line(&mut self) {
        let kept = self.out.trim_end_matches([' ', '\t']).len();
        self.out.truncate(kept);
    }

    pub fn ends_line(&self) -> bool {
        let kept = self.out.trim_end_matches([' ', '\t']);
        kept.is_empty() || kept.ends_with('\n')
    }

    pub fn finish(self) -> String {
        self.out
    }
}

/// Whether a text can be the name of a variable here.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Makes a variable's name of any text, and notes that it has another one now.
pub fn name(text: &str, notes: &mut Vec<String>) -> String {
    if is_name(text) {
        return text.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut name: String = text.chars().map(plain).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    notes.push(format!(
        "variable {text:?} is called {name:?} here: callers must send that name"
    ));
    name
}

/// Converts `{{ variable }}`, as Langfuse and OpenAI's prompts have it: no sections, no escaping.
pub fn mustache(text: &str, notes: &mut Vec<String>) -> String {
    let mut template = Template::default();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let Some(close) = rest[open..].find("}}").map(|at| open + at) else {
            break;
        };
        let inside = rest[open + 2..close].trim();
        template.literal(&rest[..open]);
        if inside.starts_with(['#', '^', '/', '>', '!', '&', '{']) || inside.is_empty() || inside.contains(['{', '\n'])
        {
            if inside.starts_with(['#', '^', '/', '>', '!']) {
                notes.push(format!("{{{{{inside}}}}} is no variable and stays as text"));
            }
            // The variable may begin at the next brace: {{{name}}} is a brace, a variable and a brace.
            template.literal("{");
            rest = &rest[open + 1..];
            continue;
        }
        template.expression(&name(inside, notes));
        rest = &rest[close + 2..];
    }
    template.literal(rest);
    template.finish()
}

/// Converts Python's format strings: `{variable}`, `{{` and `}}` for braces.
///
/// Source: <https://docs.python.org/3/library/string.html#format-string-syntax>.
pub fn fstring(text: &str, notes: &mut Vec<String>) -> String {
    let mut template = Template::default();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        template.literal(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            template.literal(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let field = tail.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let Some((inside, after)) = field.filter(|(inside, _)| !inside.contains(['{', '\n', '"'])) else {
            template.literal(&tail[..1]);
            rest = &tail[1..];
            continue;
        };
        let plain = inside.split([':', '!']).next().unwrap_or(inside).trim();
        if plain.len() < inside.trim().len() {
            notes.push(format!(
                "{{{inside}}}: the value is put in as it is, without its format"
            ));
        }
        match plain.split_once(['.', '[']) {
            Some((first, _)) if is_name(first) => template.expression(plain),
            _ => template.expression(&name(plain, notes)),
        }
        rest = after;
    }
    template.literal(rest);
    template.finish()
}
