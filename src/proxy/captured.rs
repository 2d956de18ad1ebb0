//! The part of a record that callers and providers wrote: what policy lets through, redacted, then cut.

use std::borrow::Cow;

use super::exchange::{Captured, Content, Exchange};
use super::worker::Worker;
use crate::config::{Capture, CaptureByPrompt};
use crate::telemetry::capture::{Kept, MARGIN, People};

/// The most bytes of a record's small texts.
const MAX_LABEL_BYTES: usize = 256;

/// Tags that are an id of a person.
const PEOPLE_TAGS: [&str; 3] = ["user", "user_id", "safety_identifier"];

/// Content as it may be recorded.
pub struct KeptContent<'a> {
    pub variables: Kept<'a>,
    pub request: Kept<'a>,
    pub response: Kept<'a>,
}

/// Small texts as they may be recorded.
pub struct SmallTexts<'a> {
    pub session: Cow<'a, str>,
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub document_ids: Vec<Cow<'a, str>>,
    pub request_model: Cow<'a, str>,
    pub response_model: Cow<'a, str>,
    pub finish_reason: Cow<'a, str>,
    pub response_id: Cow<'a, str>,
    pub upstream_request_id: Cow<'a, str>,
}

const NOTHING: Kept<'static> = Kept {
    bytes: Cow::Borrowed(b""),
    truncated: false,
};

impl Content {
    /// Draws room for an open stream's text; returns how much there is, at most `most`. Once there was too little, it asks
    /// no more.
    pub fn draw(&mut self, wanted: usize, most: usize) -> usize {
        let wanted = wanted.min(most);
        let Some(held) = &mut self.held else { return 0 };
        if wanted <= held.bytes() || self.starved {
            return held.bytes().min(most);
        }
        let granted = held.grow_to(wanted);
        self.starved = granted < wanted;
        granted.min(most)
    }
}

impl Exchange {
    /// Takes over what the prompt's version says of recording, as far as the configuration lets it.
    pub fn narrow_capture(&mut self, version: Option<Capture>) {
        self.capture = match (version, self.worker.settings.capture_by_prompt) {
            (None, _) => self.capture,
            (Some(capture), CaptureByPrompt::Any) => capture,
            (Some(Capture::Metadata), CaptureByPrompt::Narrow) => Capture::Metadata,
            (Some(Capture::Full), CaptureByPrompt::Narrow) => self.capture,
        };
    }

    /// Whether content is recorded at all.
    pub fn keeps_content(&self) -> bool {
        self.capture == Capture::Full && self.worker.recorder.is_on()
    }

    /// Prepares to keep a relayed answer in memory; returns how many bytes of it, before it is redacted and cut.
    pub fn hold_stream(&mut self) -> usize {
        self.content.held = Some(self.worker.settings.capture_budget.hold());
        self.worker.settings.capture_max_field.saturating_add(MARGIN)
    }

    /// Returns the content that may be recorded, at most `limit` bytes of each field.
    pub fn kept_content(&self, limit: usize) -> KeptContent<'_> {
        if !self.keeps_content() {
            return KeptContent {
                variables: NOTHING,
                request: NOTHING,
                response: NOTHING,
            };
        }
        let redactor = &self.worker.settings.redactor;
        let pseudonym = |id: &str| self.pseudonym(id);
        let people = |is_call| People {
            known: &self.caller.ids,
            is_call,
            pseudonym: &pseudonym,
        };
        let (call, variables) = (people(true), people(false));
        let hash = self.worker.settings.hash_users;
        let (call, variables) = (hash.then_some(&call), hash.then_some(&variables));
        KeptContent {
            variables: redactor.content(&self.content.variables, true, limit, variables),
            request: redactor.content(&self.content.request, true, limit, call),
            response: match &self.content.response {
                Captured::Nothing => NOTHING,
                Captured::Body(body) => redactor.content(body, true, limit, call),
                Captured::Part(body) => redactor.content(body, false, limit, call),
                Captured::Stream(assembly) => {
                    let json = assembly.to_json(&|text| redactor.unfinished(text));
                    // The text was cut already, not the form: it stays JSON, a little longer than the limit.
                    let most = limit.saturating_add(json.len().saturating_sub(assembly.kept()));
                    let kept = redactor.content(&json, true, most, call);
                    Kept {
                        truncated: kept.truncated || assembly.truncated() || self.content.starved,
                        bytes: Cow::Owned(kept.bytes.into_owned()),
                    }
                }
            },
        }
    }

    /// Returns the small texts that may be recorded.
    pub fn small_texts(&self) -> SmallTexts<'_> {
        let worker = &self.worker;
        let call = &self.call;
        let documents = self.prompt.iter().flat_map(|prompt| &prompt.document_ids);
        SmallTexts {
            session: worker.label(&self.caller.session),
            tags: self.caller.tags.iter().map(|tag| self.tag(tag)).collect(),
            document_ids: documents.map(|id| worker.label(id)).collect(),
            request_model: worker.label(&call.request_model),
            response_model: worker.label(&call.facts.model),
            finish_reason: worker.label(&call.facts.finish_reason),
            response_id: worker.label(&call.facts.id),
            upstream_request_id: worker.label(&call.upstream_request_id),
        }
    }

    fn tag<'a>(&'a self, (name, value): &'a (String, String)) -> (Cow<'a, str>, Cow<'a, str>) {
        let name = self.worker.label(name);
        if self.worker.settings.hash_users && PEOPLE_TAGS.contains(&name.as_ref()) {
            return (name, Cow::Owned(self.pseudonym(value)));
        }
        if self.worker.settings.redactor.is_field(&name) && !value.is_empty() {
            return (name, Cow::Borrowed(crate::telemetry::capture::REDACTED));
        }
        (name, self.worker.label(value))
    }
}

impl Worker {
    /// Returns what may be recorded of a small text.
    pub fn label<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.settings.redactor.label(text, MAX_LABEL_BYTES)
    }
}
