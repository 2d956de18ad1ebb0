//! Brings together what a rehearsal needs, and runs it beside the runtime.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::admin::call::Call;
use crate::admin::errors::Failure;
use crate::domain::exchange::Outcome;
use crate::domain::preflight::{self, Node, Recorded, Rehearsal, Report};
use crate::domain::price::Rates;
use crate::domain::review::CheckState;
use crate::domain::split::Arm;
use crate::domain::version::CompiledVersion;
use crate::registry::{Deployment, Missing, Present, RegistryError};
use crate::telemetry::ExchangeFilter;
use crate::telemetry::capture::REDACTED;
use crate::telemetry::store::LIMIT_MAX;

/// What is to be rehearsed.
pub struct Wanted<'a> {
    pub prompt: &'a str,
    pub environment: &'a str,
    pub split: &'a [Arm],
    pub sample: u32,
    pub examples: usize,
    pub until: Instant,
}

/// Recorded requests that cannot be rendered again, by the reason.
#[derive(Debug, Default, Clone, Copy)]
pub struct NotComparable {
    pub not_captured: usize,
    pub truncated: usize,
    pub redacted: usize,
    pub shed: usize,
}

/// What came of it.
pub struct Rehearsed {
    pub prompt: String,
    pub environment: String,
    pub split: Vec<Arm>,
    pub live: Option<Deployment>,
    pub target: Option<Deployment>,
    pub looked_at: usize,
    pub not_comparable: NotComparable,
    /// Why the recorded requests could not be read.
    pub unread: Option<&'static str>,
    pub report: Report,
}

/// A request, owned.
struct Kept {
    exchange_id: String,
    variables: Box<RawValue>,
    model: String,
}

#[derive(Default)]
struct Requests {
    kept: Vec<Kept>,
    looked_at: usize,
    not_comparable: NotComparable,
    unread: Option<&'static str>,
}

type Compiled = BTreeMap<u32, Result<CompiledVersion, String>>;

/// Rehearses a deployment.
pub async fn rehearse(call: &Call, wanted: Wanted<'_>) -> Result<Rehearsed, Failure> {
    let Present { live, target } = call.registry().present(wanted.prompt, wanted.environment).await?;
    let split_of = |deployment: &Option<Deployment>| deployment.as_ref().map_or_else(Vec::new, |one| one.split.clone());
    let (live_split, target_split) = (split_of(&live), split_of(&target));
    let mut contents = BTreeMap::new();
    for arm in wanted.split.iter().chain(&live_split).chain(&target_split) {
        if let Entry::Vacant(place) = contents.entry(arm.version) {
            place.insert(match call.registry().version(wanted.prompt, arm.version).await {
                Ok(version) => Some(version.content),
                Err(RegistryError::NotFound(Missing::Version { .. })) => None,
                Err(error) => return Err(error.into()),
            });
        }
    }
    let requests = read(call, &wanted).await?;
    let (routing, settings) = call.node();
    let now = jiff::Timestamp::now().as_second();
    let (split, examples, until) = (wanted.split.to_vec(), wanted.examples, wanted.until);
    let candidate = split.clone();
    // Rendering is work for a processor: other requests of the control plane go on meanwhile.
    let work = tokio::task::spawn_blocking(move || {
        let compile = |(version, content): (u32, Option<_>)| {
            let compiled = match content {
                Some(content) => CompiledVersion::compile(&content).map_err(|problems| {
                    let problems: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
                    problems.join("; ")
                }),
                None => Err("it does not exist".to_owned()),
            };
            (version, compiled)
        };
        let compiled: Compiled = contents.into_iter().map(compile).collect();
        let rates = |model: &str| -> Option<Rates> {
            let routed = routing.model(model)?;
            let upstream = routed.targets.first().and_then(|target| target.model.as_deref());
            let listed = |name: &str| settings.prices.rates(name, now);
            routed
                .rates
                .or_else(|| listed(upstream.unwrap_or(model)))
                .or_else(|| listed(&routed.name))
        };
        let node = Node {
            has_model: &|model| routing.model(model).is_some(),
            rates: &rates,
            goes_on: &|| Instant::now() < until,
        };
        let recorded: Vec<Recorded<'_>> = requests.kept.iter().map(Kept::borrow).collect();
        let report = preflight::rehearse(
            &Rehearsal {
                candidate: &arms(&candidate, &compiled),
                live: &arms(&live_split, &compiled),
                target: &arms(&target_split, &compiled),
                requests: &recorded,
                limit: settings.max_render_bytes,
                examples,
            },
            &node,
        );
        (report, requests.looked_at, requests.not_comparable, requests.unread)
    });
    let (report, looked_at, not_comparable, unread) = work.await.map_err(|error| {
        tracing::error!(%error, "a rehearsal panicked");
        Failure::internal()
    })?;
    Ok(Rehearsed {
        prompt: wanted.prompt.to_owned(),
        environment: wanted.environment.to_owned(),
        split,
        live,
        target,
        looked_at,
        not_comparable,
        unread,
        report,
    })
}

fn arms<'a>(split: &'a [Arm], compiled: &'a Compiled) -> Vec<preflight::Arm<'a>> {
    let arm = |arm: &'a Arm| preflight::Arm {
        variant: &arm.variant,
        version: arm.version,
        compiled: compiled[&arm.version].as_ref().map_err(String::as_str),
    };
    split.iter().map(arm).collect()
}

impl Kept {
    fn borrow(&self) -> Recorded<'_> {
        Recorded {
            exchange_id: &self.exchange_id,
            variables: &self.variables,
            model: &self.model,
        }
    }
}

/// Reads the newest requests that a deployment would have met: no refused ones, of which variables are not recorded, and
/// none that name their version.
async fn read(call: &Call, wanted: &Wanted<'_>) -> Result<Requests, Failure> {
    let mut requests = Requests::default();
    let Some(store) = call.store() else {
        requests.unread = Some("requests are not recorded here (telemetry.sink is \"none\")");
        return Ok(requests);
    };
    let filter = ExchangeFilter {
        prompt: Some(wanted.prompt.to_owned()),
        environment: Some(wanted.environment.to_owned()),
        ..ExchangeFilter::default()
    };
    let limit = (wanted.sample * 2).min(LIMIT_MAX);
    let page = match timeout_at(wanted.until, store.exchanges(&filter, limit, None)).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the recorded requests of a rehearsal cannot be read");
            requests.unread = Some("the recorded requests cannot be read now");
            return Ok(requests);
        }
        Err(_) => {
            requests.unread = Some("the recorded requests could not be read in time");
            return Ok(requests);
        }
    };
    let of_interest = page
        .items
        .iter()
        .filter(|record| record["outcome"] != Outcome::Rejected.as_str() && record["assignment"] != "pinned");
    for record in of_interest.take(wanted.sample as usize) {
        requests.looked_at += 1;
        requests.add(record);
    }
    Ok(requests)
}

impl Requests {
    fn add(&mut self, record: &Value) {
        let not = &mut self.not_comparable;
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let variables = match &record["variables"] {
            _ if record["capture"] == "shed" => return not.shed += 1,
            _ if record["capture"] != "full" => return not.not_captured += 1,
            _ if record["variables_truncated"] == true => return not.truncated += 1,
            Value::Null => "{}".to_owned(),
            Value::String(text) if text.is_empty() => "{}".to_owned(),
            Value::Object(fields) => Value::Object(fields.clone()).to_string(),
            _ => return not.truncated += 1,
        };
        if variables.contains(REDACTED) {
            return not.redacted += 1;
        }
        if let Ok(variables) = RawValue::from_string(variables) {
            self.kept.push(Kept {
                exchange_id: text("exchange_id"),
                variables,
                model: text("request_model"),
            });
        }
    }
}

/// Estimated tokens and costs before and after, as the splits would have it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Change {
    pub tokens_before: f64,
    pub tokens_after: f64,
    pub cost_before: f64,
    pub cost_after: f64,
}

impl Rehearsed {
    pub fn examples(&self) -> usize {
        let arms = self.report.arms.iter().chain(&self.report.rollback);
        arms.flat_map(|arm| &arm.against)
            .map(|against| against.examples.len())
            .sum()
    }

    /// Whether it may go live, as far as can be told.
    pub fn state(&self) -> CheckState {
        let unknown =
            self.unread.is_some() && self.looked_at == 0 || self.report.cut_short && self.report.compared == 0;
        match () {
            () if self.report.arms.iter().any(preflight::ArmReport::fails) => CheckState::Fail,
            () if unknown => CheckState::Pending,
            () => CheckState::Pass,
        }
    }

    /// The most requests that an arm of the candidate, or of the rollback target, would newly refuse.
    pub fn newly_refused(&self) -> (usize, usize) {
        let most = |arms: &[preflight::ArmReport]| arms.iter().map(|arm| arm.newly_refused).max().unwrap_or(0);
        (most(&self.report.arms), most(&self.report.rollback))
    }

    /// The most requests that an arm would render differently from what is live.
    pub fn changed(&self) -> usize {
        let against = self.report.arms.iter().flat_map(|arm| &arm.against);
        against.map(|against| against.changed).max().unwrap_or(0)
    }

    /// Sums over all pairs of a live arm and one of the candidate's, by the share of requests that would meet it.
    pub fn change(&self) -> Change {
        let mut change = Change::default();
        let live = self.live.as_ref().map_or(&[][..], |live| &live.split);
        for (arm, report) in self.split.iter().zip(&self.report.arms) {
            for (live, against) in live.iter().zip(&report.against) {
                let share = arm.weight * live.weight / 10_000.0;
                change.tokens_before += share * against.tokens_before as f64;
                change.tokens_after += share * against.tokens_after as f64;
                change.cost_before += share * against.cost_before_nanodollars as f64;
                change.cost_after += share * against.cost_after_nanodollars as f64;
            }
        }
        change
    }

    /// One line, without content.
    pub fn summary(&self) -> String {
        if self.split.is_empty() {
            return format!("takes the prompt off {}: its callers would get 404", self.environment);
        }
        let compared = self.report.compared;
        let (newly, back) = self.newly_refused();
        let mut parts = Vec::new();
        let arms = self.report.arms.iter();
        let failing = arms
            .flat_map(|arm| &arm.findings)
            .filter(|finding| finding.level == preflight::Level::Fail && finding.about != "variables");
        parts.extend(failing.take(3).map(|finding| finding.message.clone()));
        match (compared, self.unread) {
            (0, Some(why)) => parts.push(why.to_owned()),
            (0, None) => parts.push("no recorded requests to compare".to_owned()),
            _ => {
                parts.push(format!("{newly} of {compared} requests would be refused"));
                parts.push(format!("{} would read differently", self.changed()));
                let change = self.change();
                parts.push(format!(
                    "{:+.0} input tokens",
                    change.tokens_after - change.tokens_before
                ));
                let dollars = (change.cost_after - change.cost_before) / 1e9;
                parts.push(format!("{dollars:+.6} dollars of input"));
            }
        }
        if back > 0 {
            parts.push(format!("going back would refuse {back}"));
        }
        parts.join(", ")
    }
}
