//! What a candidate would do to requests that really came, found out without calling a model.
//!
//! [`rehearse`] renders the recorded variables of each request under what is live, under every arm of the candidate and
//! under the rollback target, and counts what comes of it. Texts are only in examples; everything else is counts, names of
//! variables and sizes, so that a report without examples tells nobody what callers wrote.

mod report;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use similar::{ChangeTag, TextDiff};

use super::error::{ApiError, ErrorCode};
use super::price::Rates;
use super::rendering;
use super::text_size::TextSize;
use super::variables;
use super::version::{CompiledVersion, Problem};

pub use report::{Against, ArmReport, Example, Finding, Level, NameCount, RefusalCount};

/// Stands for what the caller said itself: it is the same before and after.
const CALLERS: &str = r#"{"role":"caller","content":"(the caller's own messages)"}"#;

/// The longest text that is compared word by word, in bytes.
const MAX_DIFF_BYTES: usize = 16 * 1024;

/// One arm of a split with its version, or why that cannot be used.
#[derive(Debug, Clone, Copy)]
pub struct Arm<'a> {
    pub variant: &'a str,
    pub version: u32,
    pub compiled: Result<&'a CompiledVersion, &'a str>,
}

/// A request as it was recorded, with its variables in whole.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    pub exchange_id: &'a str,
    pub variables: &'a RawValue,
    /// The model that the caller named; empty if none.
    pub model: &'a str,
}

/// What is compared with what.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsal<'a> {
    pub candidate: &'a [Arm<'a>],
    pub live: &'a [Arm<'a>],
    /// What a rollback would make live.
    pub target: &'a [Arm<'a>],
    /// Newest first.
    pub requests: &'a [Recorded<'a>],
    /// The most bytes of a rendered prompt (`limits.max_render_bytes`).
    pub limit: usize,
    /// How many examples may be shown in all; 0 where the reader may not see content.
    pub examples: usize,
}

/// What the node that rehearses knows.
pub struct Node<'a> {
    /// Whether a model of that name is configured.
    pub has_model: &'a dyn Fn(&str) -> bool,
    /// What a model costs now.
    pub rates: &'a dyn Fn(&str) -> Option<Rates>,
    /// Asked before each request; the rest is left out once it says no.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// What came of a [`Rehearsal`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many requests were rendered.
    pub compared: usize,
    /// Whether time ran out before all were.
    pub cut_short: bool,
    pub arms: Vec<ArmReport>,
    /// The arms of the rollback target.
    pub rollback: Vec<ArmReport>,
}

/// A request's messages under one version.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendering {
    Text {
        text: String,
        /// About how many tokens, without the caller's own messages.
        tokens: u64,
        /// Variables that were given and are not the version's.
        ignored: Vec<String>,
    },
    /// The variables do not fit: the caller would get a 4xx.
    Refused(Vec<Problem>),
    /// They fit, and a template fails on them: the caller would get a 422.
    Failed(String),
}

/// How a rendering differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Same,
    Changed,
    /// Rendered, where what is live does not.
    Accepted,
    Refused,
    Failed,
}

/// A stretch of a word-level difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// `same`, `removed` or `added`.
    pub op: &'static str,
    pub text: String,
}

impl Rendering {
    /// Renders recorded variables under a version.
    pub fn of(version: &CompiledVersion, recorded: &RawValue, limit: usize) -> Self {
        match Self::attempt(version, recorded, limit) {
            Ok(rendering) => rendering,
            Err(error) if error.code == ErrorCode::RenderFailed => Self::Failed(error.message),
            Err(error) => Self::Refused(problems(&error)),
        }
    }

    fn attempt(version: &CompiledVersion, recorded: &RawValue, limit: usize) -> Result<Self, ApiError> {
        let (values, unknown) = variables::check(&version.variables, Some(recorded), version.strict)?;
        let messages = rendering::messages(version, &values, Cow::Borrowed(CALLERS), limit)?;
        let mut json = Vec::with_capacity(messages.size() + 16);
        messages.write(&mut json);
        let list: Vec<Value> = serde_json::from_slice(&json).unwrap_or_default();
        let (mut text, mut size) = (String::new(), TextSize::default());
        for message in &list {
            let role = message["role"].as_str().unwrap_or("message");
            let content = match &message["content"] {
                Value::String(content) => Cow::Borrowed(content.as_str()),
                _ => Cow::Owned(format!("{message:#}")),
            };
            if role != "caller" {
                size.add(&content);
            }
            text.push_str(&format!("[{role}]\n{content}\n"));
        }
        Ok(Self::Text {
            text,
            tokens: size.tokens(),
            ignored: unknown.into_iter().map(Cow::into_owned).collect(),
        })
    }

    fn tokens(&self) -> Option<u64> {
        match self {
            Self::Text { tokens, .. } => Some(*tokens),
            Self::Refused(_) | Self::Failed(_) => None,
        }
    }

    /// Compares with what is live.
    pub fn verdict(&self, live: &Self) -> Verdict {
        match (live, self) {
            (_, Self::Refused(_)) => Verdict::Refused,
            (_, Self::Failed(_)) => Verdict::Failed,
            (Self::Text { text: before, .. }, Self::Text { text: after, .. }) if before == after => Verdict::Same,
            (Self::Text { .. }, Self::Text { .. }) => Verdict::Changed,
            (_, Self::Text { .. }) => Verdict::Accepted,
        }
    }
}

/// Reads the problems that a refusal lists.
fn problems(error: &ApiError) -> Vec<Problem> {
    let listed = error
        .details
        .as_ref()
        .and_then(|details| details["problems"].as_array());
    let problem = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        Problem::new(text("variable"), text("message"))
    };
    match listed {
        Some(items) => items.iter().map(problem).collect(),
        None => vec![Problem::new(error.param.clone().unwrap_or_default(), &*error.message)],
    }
}

/// Compares two texts word by word; nothing if they are too long for that.
pub fn words(before: &str, after: &str) -> Option<Vec<Piece>> {
    if before.len().max(after.len()) > MAX_DIFF_BYTES {
        return None;
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for change in TextDiff::from_words(before, after).iter_all_changes() {
        let op = match change.tag() {
            ChangeTag::Equal => "same",
            ChangeTag::Delete => "removed",
            ChangeTag::Insert => "added",
        };
        match pieces.last_mut() {
            Some(last) if last.op == op => last.text.push_str(change.value()),
            _ => pieces.push(Piece {
                op,
                text: change.value().to_owned(),
            }),
        }
    }
    Some(pieces)
}

/// Renders every request under every version and counts what comes of it.
pub fn rehearse(rehearsal: &Rehearsal<'_>, node: &Node<'_>) -> Report {
    let begin = |arm: &Arm<'_>| ArmReport::begin(arm, rehearsal.live, node);
    let mut report = Report {
        compared: 0,
        cut_short: false,
        arms: rehearsal.candidate.iter().map(begin).collect(),
        rollback: rehearsal.target.iter().map(begin).collect(),
    };
    let sides = [rehearsal.candidate, rehearsal.live, rehearsal.target];
    let usable = sides
        .into_iter()
        .flatten()
        .filter_map(|arm| Some((arm.version, arm.compiled.ok()?)));
    let versions: BTreeMap<u32, &CompiledVersion> = usable.collect();
    let mut examples = rehearsal.examples;
    for request in rehearsal.requests {
        if !(node.goes_on)() {
            report.cut_short = true;
            break;
        }
        let render = |(version, compiled): (&u32, &&CompiledVersion)| {
            (*version, Rendering::of(compiled, request.variables, rehearsal.limit))
        };
        let renderings: BTreeMap<u32, Rendering> = versions.iter().map(render).collect();
        let one = report::Request {
            recorded: request,
            renderings: &renderings,
            live: rehearsal.live,
            rates: node.rates,
        };
        for (arms, reports) in [
            (rehearsal.candidate, &mut report.arms),
            (rehearsal.target, &mut report.rollback),
        ] {
            for (arm, report) in arms.iter().zip(reports) {
                report.add(arm, &one, &mut examples);
            }
        }
        report.compared += 1;
    }
    let arms = rehearsal.candidate.iter().zip(&mut report.arms);
    for (arm, of_arm) in arms.chain(rehearsal.target.iter().zip(&mut report.rollback)) {
        of_arm.end(arm, report.compared);
    }
    report
}

#[cfg(test)]
mod tests;
