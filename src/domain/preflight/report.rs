//! What is counted for each arm.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Arm, Node, Piece, Recorded, Rendering, Verdict, words};
use crate::domain::price::Rates;
use crate::domain::usage::Usage;
use crate::domain::variables::is_identifier;
use crate::domain::version::Problem;

/// The most different names that are counted for one arm.
const MAX_NAMES: usize = 50;

/// Stands for names that no variable can have: callers may write anything there.
const OTHER: &str = "(other)";

/// The most examples of one arm against one live arm.
const MAX_EXAMPLES: usize = 5;

/// The longest text of an example, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Warn,
    Fail,
}

/// Something to know about an arm before it goes live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// `version`, `model`, `price`, `variables`.
    pub about: &'static str,
    pub message: String,
}

/// How many requests have a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NameCount {
    pub name: String,
    pub requests: usize,
}

/// How many requests would be refused for a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalCount {
    pub variable: String,
    /// `missing`, `unknown` or `does_not_fit`.
    pub kind: &'static str,
    pub requests: usize,
}

/// One arm under all requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmReport {
    pub variant: String,
    pub version: u32,
    /// The version's own model; None where it is the caller's.
    pub model: Option<String>,
    pub findings: Vec<Finding>,
    /// Requests that would get a 4xx for their variables.
    pub refused: usize,
    /// Requests on which a template fails: a 422.
    pub failed: usize,
    /// Of both, those that some live arm renders, or all where nothing is live.
    pub newly_refused: usize,
    pub refusals: Vec<RefusalCount>,
    /// Variables that callers sent and the version does not have.
    pub ignored_variables: Vec<NameCount>,
    /// Variables that the version needs and no caller sent.
    pub unsent_variables: Vec<String>,
    /// Estimated input tokens of all requests that are rendered, without the callers' own messages.
    pub input_tokens: u64,
    pub against: Vec<Against>,
    #[serde(skip)]
    refused_for: BTreeMap<(String, &'static str), usize>,
    #[serde(skip)]
    ignored: BTreeMap<String, usize>,
    #[serde(skip)]
    unsent: Vec<String>,
}

/// One arm compared with one that is live.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    pub variant: String,
    pub version: u32,
    pub same: usize,
    pub changed: usize,
    /// Rendered, where this live arm does not.
    pub accepted: usize,
    pub refused: usize,
    pub failed: usize,
    /// Estimated input tokens of the requests that both render.
    pub tokens_before: u64,
    pub tokens_after: u64,
    /// Input cost of those of them whose models have prices, in nano-dollars.
    pub cost_before_nanodollars: u64,
    pub cost_after_nanodollars: u64,
    /// Those whose models have none.
    pub unpriced: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// One request, with its texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    pub exchange_id: String,
    pub verdict: Verdict,
    /// None where it is not rendered, like the following.
    pub before: Option<String>,
    pub after: Option<String>,
    /// None also where the texts are too long to compare.
    pub diff: Option<Vec<Piece>>,
    pub tokens_before: Option<u64>,
    pub tokens_after: Option<u64>,
    pub cost_before_nanodollars: Option<u64>,
    pub cost_after_nanodollars: Option<u64>,
    /// Why it would be refused.
    pub problems: Vec<Problem>,
}

/// One request under every version.
pub(super) struct Request<'a> {
    pub recorded: &'a Recorded<'a>,
    pub renderings: &'a BTreeMap<u32, Rendering>,
    pub live: &'a [Arm<'a>],
    pub rates: &'a dyn Fn(&str) -> Option<Rates>,
}

impl Request<'_> {
    /// What the rendered input costs under an arm, if its model has a price.
    fn cost(&self, arm: &Arm<'_>, tokens: u64) -> Option<u64> {
        let callers = Some(self.recorded.model).filter(|model| !model.is_empty() && !model.starts_with("prompt/"));
        let rates = (self.rates)(arm.compiled.ok()?.model_for(callers)?)?;
        let input = u32::try_from(tokens).unwrap_or(u32::MAX);
        Some(rates.cost(&Usage {
            input,
            ..Usage::default()
        }))
    }
}

/// A name as it may be shown to who may not see content.
fn harmless(name: &str) -> String {
    let harmless = name.len() <= 64 && is_identifier(name);
    if harmless { name } else { OTHER }.to_owned()
}

fn kind_of(problem: &Problem) -> &'static str {
    match problem.message.as_str() {
        "is missing" => "missing",
        message if message.starts_with("is not a variable of this prompt") => "unknown",
        _ => "does_not_fit",
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if counts.len() < MAX_NAMES || counts.contains_key(&key) {
        *counts.entry(key).or_default() += 1;
    }
}

impl ArmReport {
    /// Looks at the arm itself.
    pub(super) fn begin(arm: &Arm<'_>, live: &[Arm<'_>], node: &Node<'_>) -> Self {
        let compiled = arm.compiled.ok();
        let model = compiled.and_then(|version| version.model.as_deref());
        let mut findings = Vec::new();
        let mut find = |level, about, message| findings.push(Finding { level, about, message });
        if let Err(why) = arm.compiled {
            find(
                Level::Fail,
                "version",
                format!("version {} cannot be used: {why}", arm.version),
            );
        }
        match model {
            Some(model) if !(node.has_model)(model) => {
                let message = format!("model {model:?} is not configured on this node, add it under [[models]]");
                find(Level::Fail, "model", message);
            }
            Some(model) if (node.rates)(model).is_none() => {
                let message = format!("model {model:?} has no price: costs of it are recorded as 0");
                find(Level::Warn, "price", message);
            }
            _ => {}
        }
        let required = compiled.iter().flat_map(|version| &version.variables);
        let required = required.filter(|variable| variable.is_required());
        Self {
            variant: arm.variant.to_owned(),
            version: arm.version,
            model: model.map(str::to_owned),
            findings,
            refused: 0,
            failed: 0,
            newly_refused: 0,
            refusals: Vec::new(),
            ignored_variables: Vec::new(),
            unsent_variables: Vec::new(),
            input_tokens: 0,
            against: live.iter().map(Against::begin).collect(),
            refused_for: BTreeMap::new(),
            ignored: BTreeMap::new(),
            unsent: required.map(|variable| variable.name.to_string()).collect(),
        }
    }

    /// Counts a request.
    pub(super) fn add(&mut self, arm: &Arm<'_>, request: &Request<'_>, examples: &mut usize) {
        let Some(after) = request.renderings.get(&arm.version) else {
            return;
        };
        match after {
            Rendering::Text { tokens, ignored, .. } => {
                self.input_tokens += tokens;
                // What rendered has all it needs.
                self.unsent.clear();
                for name in ignored {
                    count(&mut self.ignored, harmless(name));
                }
            }
            Rendering::Refused(problems) => {
                self.refused += 1;
                let missing = |name: &String| problems.iter().any(|p| p.path == **name && kind_of(p) == "missing");
                self.unsent.retain(missing);
                for problem in problems {
                    count(&mut self.refused_for, (harmless(&problem.path), kind_of(problem)));
                }
            }
            Rendering::Failed(_) => {
                self.failed += 1;
                self.unsent.clear();
            }
        }
        let live = request
            .live
            .iter()
            .filter_map(|arm| request.renderings.get(&arm.version));
        let renders = |rendering: &Rendering| matches!(rendering, Rendering::Text { .. });
        if !renders(after) && (request.live.is_empty() || live.into_iter().any(renders)) {
            self.newly_refused += 1;
        }
        for (live, against) in request.live.iter().zip(&mut self.against) {
            against.add(arm, live, request, examples);
        }
    }

    /// Sums up, after `compared` requests.
    pub(super) fn end(&mut self, arm: &Arm<'_>, compared: usize) {
        let refusals = std::mem::take(&mut self.refused_for);
        let refusal = |((variable, kind), requests)| RefusalCount {
            variable,
            kind,
            requests,
        };
        self.refusals = refusals.into_iter().map(refusal).collect();
        let ignored = std::mem::take(&mut self.ignored);
        self.ignored_variables = ignored
            .into_iter()
            .map(|(name, requests)| NameCount { name, requests })
            .collect();
        if compared > 0 && arm.compiled.is_ok() {
            self.unsent_variables = std::mem::take(&mut self.unsent);
        }
        let mut find = |level, message| {
            self.findings.push(Finding {
                level,
                about: "variables",
                message,
            });
        };
        if self.newly_refused > 0 {
            let newly = self.newly_refused;
            find(Level::Fail, format!("{newly} of {compared} requests would be refused"));
        }
        if !self.unsent_variables.is_empty() {
            let names = self.unsent_variables.join(", ");
            find(Level::Warn, format!("no caller sent {names}"));
        }
        if !self.ignored_variables.is_empty() {
            let names: Vec<&str> = self.ignored_variables.iter().map(|count| count.name.as_str()).collect();
            find(
                Level::Warn,
                format!("callers sent {}, which it ignores", names.join(", ")),
            );
        }
    }

    /// Whether it should not go live.
    pub fn fails(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Fail)
    }
}

impl Against {
    fn begin(live: &Arm<'_>) -> Self {
        Self {
            variant: live.variant.to_owned(),
            version: live.version,
            same: 0,
            changed: 0,
            accepted: 0,
            refused: 0,
            failed: 0,
            tokens_before: 0,
            tokens_after: 0,
            cost_before_nanodollars: 0,
            cost_after_nanodollars: 0,
            unpriced: 0,
            examples: Vec::new(),
        }
    }

    fn add(&mut self, arm: &Arm<'_>, live: &Arm<'_>, request: &Request<'_>, examples: &mut usize) {
        let renderings = (
            request.renderings.get(&live.version),
            request.renderings.get(&arm.version),
        );
        let (Some(before), Some(after)) = renderings else {
            return;
        };
        let verdict = after.verdict(before);
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::Changed => self.changed += 1,
            Verdict::Accepted => self.accepted += 1,
            Verdict::Refused => self.refused += 1,
            Verdict::Failed => self.failed += 1,
        }
        let (tokens_before, tokens_after) = (before.tokens(), after.tokens());
        let cost_before = tokens_before.and_then(|tokens| request.cost(live, tokens));
        let cost_after = tokens_after.and_then(|tokens| request.cost(arm, tokens));
        if let (Some(was), Some(is)) = (tokens_before, tokens_after) {
            self.tokens_before += was;
            self.tokens_after += is;
            match (cost_before, cost_after) {
                (Some(was), Some(is)) => {
                    self.cost_before_nanodollars = self.cost_before_nanodollars.saturating_add(was);
                    self.cost_after_nanodollars = self.cost_after_nanodollars.saturating_add(is);
                }
                _ => self.unpriced += 1,
            }
        }
        if verdict == Verdict::Same || self.examples.len() >= MAX_EXAMPLES || *examples == 0 {
            return;
        }
        *examples -= 1;
        let diff = match (before, after) {
            (Rendering::Text { text: was, .. }, Rendering::Text { text: is, .. }) => words(was, is),
            _ => None,
        };
        self.examples.push(Example {
            exchange_id: request.recorded.exchange_id.to_owned(),
            verdict,
            before: shown(before),
            after: shown(after),
            diff,
            tokens_before,
            tokens_after,
            cost_before_nanodollars: cost_before,
            cost_after_nanodollars: cost_after,
            problems: match after {
                Rendering::Text { .. } => Vec::new(),
                Rendering::Refused(problems) => problems.clone(),
                Rendering::Failed(why) => vec![Problem::new("", why.as_str())],
            },
        });
    }
}

/// The text of an example, cut where it is too long.
fn shown(rendering: &Rendering) -> Option<String> {
    let Rendering::Text { text, .. } = rendering else {
        return None;
    };
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = if end < text.len() { "…" } else { "" };
    Some(format!("{}{mark}", &text[..end]))
}
