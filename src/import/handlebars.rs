//! Handlebars, as dotprompt uses it, into Jinja.
//!
//! Carried: variables and paths, `#if`, `#unless`, `#each`, `#with`, `#ifEquals`, `#unlessEquals`, `else`, comments, `~`, `@index`,
//! `@first`, `@last`, `@root`, `../`, partials without arguments. A tag alone on its line leaves no line behind, as there. What a
//! helper of somebody's own does is not known: it is noted, and the text has the variable's name in its place.
//!
//! Source: <https://handlebarsjs.com/guide/>, <https://google.github.io/dotprompt/reference/template>.

use super::text::{Template, is_name};

/// A piece of a prompt: text, or what makes messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// A template of ours.
    Text(String),
    /// `{{role "model"}}`: what follows is another message.
    Role(String),
    /// `{{history}}`.
    History,
    /// `{{media url=picture}}`: an expression of ours, or a text.
    Media(String),
}

/// What a block stands for, and how names are read inside of it.
#[derive(Debug, Clone)]
enum Block {
    If,
    /// The variable that each item has.
    Each(String),
    With(String),
}

/// A tag of the source.
struct Tag<'a> {
    inside: &'a str,
    /// `~` at its sides.
    trims: (bool, bool),
    /// Whether it may leave no line behind when it is alone on one.
    standalone: bool,
}

/// Converts a template; `partial` gives the id of the prompt that a partial is.
///
/// # Errors
/// A sentence when messages begin inside of a block, or blocks do not close.
pub fn convert(source: &str, partial: impl Fn(&str) -> String, notes: &mut Vec<String>) -> Result<Vec<Piece>, String> {
    let mut converter = Converter {
        pieces: Vec::new(),
        template: Template::default(),
        blocks: Vec::new(),
        notes,
    };
    let mut rest = source;
    // Whether the next text begins behind a tag that swallows what is left of its line.
    let mut swallow = Swallow::No;
    while let Some(open) = rest.find("{{") {
        let (before, tail) = rest.split_at(open);
        // `\{{name}}` shows the tag itself.
        if before.ends_with('\\') && !before.ends_with("\\\\") {
            converter.text(&before[..open - 1], swallow);
            swallow = Swallow::No;
            let end = tail.find("}}").map_or(tail.len(), |at| at + 2);
            converter.template.literal(&tail[..end]);
            rest = &tail[end..];
            continue;
        }
        let Some((tag, after)) = read_tag(tail) else {
            return Err(format!(
                "a tag is not closed: {}",
                tail.lines().next().unwrap_or_default()
            ));
        };
        converter.text(before, swallow);
        let line_end = after.trim_start_matches([' ', '\t']);
        let alone = tag.standalone
            && converter.template.ends_line()
            && (line_end.is_empty() || line_end.starts_with('\n') || line_end.starts_with("\r\n"))
            && (before.contains('\n') || before.trim().is_empty());
        if tag.trims.0 {
            converter.trim_back();
        } else if alone {
            converter.template.trim_line();
        }
        swallow = match (tag.trims.1, alone) {
            (true, _) => Swallow::All,
            (false, true) => Swallow::Line,
            _ => Swallow::No,
        };
        converter.tag(tag.inside, &partial)?;
        rest = after;
    }
    converter.text(rest, swallow);
    if let Some(block) = converter.blocks.last() {
        return Err(format!("a block is not closed: {block:?}"));
    }
    converter.end_text();
    Ok(converter.pieces)
}

#[derive(Clone, Copy)]
enum Swallow {
    No,
    /// White space up to and with the end of the line.
    Line,
    All,
}

/// Reads one tag and returns what is behind it.
fn read_tag(text: &str) -> Option<(Tag<'_>, &str)> {
    let (open, close) = match text.starts_with("{{{") {
        true => ("{{{", "}}}"),
        false => ("{{", "}}"),
    };
    let body = &text[open.len()..];
    let long_comment = body.trim_start_matches('~').starts_with("!--");
    let end = match long_comment {
        true => body
            .find("--}}")
            .map(|at| at + 2)
            .or_else(|| body.find("--~}}").map(|at| at + 3))?,
        false => body.find(close)?,
    };
    let after = &body[end + close.len()..];
    let inside = &body[..end];
    let left = inside.starts_with('~');
    let inside = inside.strip_prefix('~').unwrap_or(inside);
    let right = inside.ends_with('~');
    let inside = inside.strip_suffix('~').unwrap_or(inside).trim();
    let standalone = inside.starts_with(['#', '/', '!', '^', '>']) || inside == "else" || inside.starts_with("else ");
    let tag = Tag {
        inside,
        trims: (left, right),
        standalone,
    };
    Some((tag, after))
}

struct Converter<'n> {
    pieces: Vec<Piece>,
    template: Template,
    blocks: Vec<(String, Block)>,
    notes: &'n mut Vec<String>,
}

impl Converter<'_> {
    fn text(&mut self, text: &str, swallow: Swallow) {
        let text = match swallow {
            Swallow::No => text,
            Swallow::All => text.trim_start(),
            Swallow::Line => {
                let rest = text.trim_start_matches([' ', '\t']);
                rest.strip_prefix("\r\n").or(rest.strip_prefix('\n')).unwrap_or(rest)
            }
        };
        self.template.literal(text);
    }

    fn trim_back(&mut self) {
        let text = std::mem::take(&mut self.template).finish();
        self.template = Template::continued(text.trim_end().to_owned());
    }

    fn end_text(&mut self) {
        let text = std::mem::take(&mut self.template).finish();
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text));
        }
    }

    fn piece(&mut self, piece: Piece, tag: &str) -> Result<(), String> {
        if let Some((block, _)) = self.blocks.last() {
            return Err(format!(
                "{{{{{tag}}}}} inside of {{{{#{block}}}}}: a message here is there or not, whatever the values"
            ));
        }
        self.end_text();
        self.pieces.push(piece);
        Ok(())
    }

    fn tag(&mut self, inside: &str, partial: &impl Fn(&str) -> String) -> Result<(), String> {
        if inside.starts_with('!') {
            return Ok(());
        }
        if let Some(name) = inside.strip_prefix('>') {
            let mut words = name.split_whitespace();
            let name = words.next().unwrap_or_default();
            if words.next().is_some() {
                self.notes.push(format!(
                    "{{{{{inside}}}}}: a partial's arguments are left out, it sees the prompt's variables"
                ));
            }
            self.template.tag(&format!("include \"prompt:{}\"", partial(name)));
            return Ok(());
        }
        if let Some(block) = inside.strip_prefix('#') {
            return self.open(block);
        }
        if let Some(name) = inside.strip_prefix('/') {
            return self.close(name.trim());
        }
        if inside == "else" || inside == "^" {
            self.template.tag("else");
            return Ok(());
        }
        if let Some(condition) = inside.strip_prefix("else if ") {
            let condition = self.condition(condition);
            self.template.tag(&format!("elif {condition}"));
            return Ok(());
        }
        let words = words(inside);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["role", role] => self.piece(Piece::Role(unquoted(role).to_owned()), inside),
            ["history"] => self.piece(Piece::History, inside),
            ["section", _] => {
                self.notes.push(format!("{{{{{inside}}}}} is left out"));
                Ok(())
            }
            ["media", arguments @ ..] => {
                let url = arguments.iter().find_map(|argument| argument.strip_prefix("url="));
                let url = url.ok_or_else(|| format!("{{{{{inside}}}}} has no url"))?;
                let url = match quoted(url) {
                    Some(text) => text.to_owned(),
                    None => format!("{{{{ {} }}}}", self.path(url)),
                };
                self.piece(Piece::Media(url), inside)
            }
            ["json", value, rest @ ..] => {
                if !rest.is_empty() {
                    self.notes
                        .push(format!("{{{{{inside}}}}}: {} is left out", rest.join(" ")));
                }
                let value = self.path(value);
                self.template.expression(&format!("{value}|tojson"));
                Ok(())
            }
            [value] => {
                let value = self.path(value);
                self.template.expression(&value);
                Ok(())
            }
            [helper, first, ..] => {
                self.notes.push(format!(
                    "{{{{{inside}}}}}: helper {helper:?} is not known here, the value is put in as it is"
                ));
                let value = self.path(first);
                self.template.expression(&value);
                Ok(())
            }
            [] => Ok(()),
        }
    }

    fn open(&mut self, block: &str) -> Result<(), String> {
        let words = words(block);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let depth = self
            .blocks
            .iter()
            .filter(|(_, block)| !matches!(block, Block::If))
            .count();
        let (opened, kind) = match words.as_slice() {
            ["if", ..] => (format!("if {}", self.condition(&block[2..])), Block::If),
            ["unless", value, ..] => (format!("if not {}", self.path(value)), Block::If),
            ["ifEquals", a, b] => (format!("if {} == {}", self.path(a), self.path(b)), Block::If),
            ["unlessEquals", a, b] => (format!("if {} != {}", self.path(a), self.path(b)), Block::If),
            ["each", list, rest @ ..] => {
                let named = rest.iter().find(|word| word.starts_with('|'));
                let item = match named.map(|word| word.trim_matches('|')).filter(|word| is_name(word)) {
                    Some(name) => name.to_owned(),
                    None if depth == 0 => "item".to_owned(),
                    None => format!("item{}", depth + 1),
                };
                (format!("for {item} in {}", self.path(list)), Block::Each(item))
            }
            ["with", value, ..] => {
                let name = format!("inner{}", depth + 1);
                (format!("with {name} = {}", self.path(value)), Block::With(name))
            }
            _ => return Err(format!("{{{{#{block}}}}}: a block that is not known here")),
        };
        self.template.tag(&opened);
        let name = words.first().copied().unwrap_or_default();
        self.blocks.push((name.to_owned(), kind));
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<(), String> {
        match self.blocks.pop() {
            Some((open, block)) if open == name => {
                let end = match block {
                    Block::If => "endif",
                    Block::Each(_) => "endfor",
                    Block::With(_) => "endwith",
                };
                self.template.tag(end);
                Ok(())
            }
            _ => Err(format!("{{{{/{name}}}}} closes nothing")),
        }
    }

    fn condition(&mut self, text: &str) -> String {
        let words = words(text);
        if words.len() > 1 {
            self.notes.push(format!(
                "{{{{#if {}}}}}: only the first word is the condition here",
                text.trim()
            ));
        }
        self.path(words.first().map_or("", String::as_str))
    }

    /// Turns a path into an expression, from where it is read.
    fn path(&mut self, path: &str) -> String {
        if quoted(path).is_some() || path.parse::<f64>().is_ok() || matches!(path, "true" | "false") {
            return path.to_owned();
        }
        let scopes: Vec<&str> = self
            .blocks
            .iter()
            .filter_map(|(_, block)| match block {
                Block::Each(name) | Block::With(name) => Some(name.as_str()),
                Block::If => None,
            })
            .collect();
        let mut level = scopes.len();
        let mut rest = path.trim_start_matches('(').trim_end_matches(')');
        match rest {
            "@index" => return "loop.index0".to_owned(),
            "@first" => return "loop.first".to_owned(),
            "@last" => return "loop.last".to_owned(),
            _ => {}
        }
        while let Some(outer) = rest.strip_prefix("../") {
            (rest, level) = (outer, level.saturating_sub(1));
        }
        if let Some(root) = rest.strip_prefix("@root.") {
            (rest, level) = (root, 0);
        }
        if rest.starts_with('@') {
            self.notes.push(format!(
                "{path} is not known here: a variable of that name is asked for"
            ));
        }
        let rest = rest
            .trim_start_matches("this.")
            .trim_start_matches("./")
            .replace(['@', '-'], "_")
            .replace('/', ".");
        let scope = level.checked_sub(1).and_then(|at| scopes.get(at)).copied();
        // A name that a block gave its item is meant, wherever it is used.
        let first = rest.split('.').next().unwrap_or_default();
        let own = scopes.contains(&first) && !first.starts_with("item") && !first.starts_with("inner");
        match (scope, rest.as_str()) {
            (Some(scope), "this" | "." | "") => scope.to_owned(),
            (Some(scope), rest) if !own => format!("{scope}.{}|default('')", indexed(rest)),
            (_, rest) if rest.contains('.') => format!("{}|default('')", indexed(rest)),
            (_, rest) => rest.to_owned(),
        }
    }
}

/// Numbers in a path are indexes: `items.0.name` is `items[0].name`.
fn indexed(path: &str) -> String {
    let mut out = String::new();
    for (at, segment) in path.split('.').enumerate() {
        let segment = segment.trim_matches(['[', ']']);
        match segment.bytes().all(|b| b.is_ascii_digit()) && !segment.is_empty() {
            true => out.push_str(&format!("[{segment}]")),
            false if at > 0 => out.push_str(&format!(".{segment}")),
            false => out.push_str(segment),
        }
    }
    out
}

/// Splits at white space outside of quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in text.trim().chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c.is_whitespace() => {
                if words.last().is_some_and(|word| !word.is_empty()) {
                    words.push(String::new());
                }
                continue;
            }
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn quoted(text: &str) -> Option<&str> {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\''))
}

fn unquoted(text: &str) -> &str {
    quoted(text).unwrap_or(text)
}
