//! The tokens of an exchange: the provider's count, or ours where its answer broke off before it said one.

use super::exchange::{AttemptFacts, Captured, Exchange};
use crate::domain::exchange::Outcome;
use crate::domain::text_size::TextSize;
use crate::domain::usage::Usage;
use crate::provider::openai::Said;
use crate::provider::text;
use crate::tokenizer::{self, Method};

impl Exchange {
    /// Returns the tokens, and how they were counted if not by the provider.
    ///
    /// Nothing is estimated of a request that the provider refused or never got.
    pub(super) fn usage(&self, outcome: Outcome) -> (Usage, Option<Method>) {
        let facts = &self.call.facts;
        let is_stream = matches!(self.content.response, Captured::Stream(_));
        let given = facts.usage.unwrap_or_default();
        // A stream's usage may be what had come by then, until its last chunks.
        let ended = !is_stream || outcome == Outcome::Ok || !facts.finish_reason.is_empty();
        if given != Usage::default() && ended {
            return (given, None);
        }
        let Some(attempt) = self.call.attempts.last() else {
            return (given, None);
        };
        let answered = (200..300).contains(&attempt.status);
        if !answered && !self.left_unanswered(attempt) {
            return (given, None);
        }
        let (input, by) = if given.input > 0 {
            (given.input.into(), Method::Tokenizer)
        } else {
            self.input()
        };
        let (output, reasoning, output_by) = if answered { self.output() } else { (0, 0, by) };
        let (input, output, reasoning) = (capped(input), capped(output + reasoning), capped(reasoning));
        let estimate = Usage {
            input,
            cached_input: 0,
            output,
            reasoning,
            total: input.saturating_add(output),
        };
        let by = if output_by == Method::Characters { output_by } else { by };
        (given.completed_by(estimate), Some(by))
    }

    /// Says whether the provider had the request and we did not wait for its answer: it reads the input all the same.
    fn left_unanswered(&self, attempt: &AttemptFacts) -> bool {
        let endpoint = self.call.target.as_ref().map(|target| &target.endpoint);
        match attempt.error {
            "cancelled" => true,
            // Not the limit for connecting, which comes under the same name.
            "timeout" => endpoint.is_some_and(|endpoint| attempt.duration >= endpoint.timeouts.first_byte),
            _ => false,
        }
    }

    fn input(&self) -> (u64, Method) {
        let found = text::of_request(&self.content.request);
        let (tokens, by) = tokenizer::count(&self.call.upstream_model, &found.texts);
        (tokens + found.other_tokens, by)
    }

    /// Tokens of the answer and of its reasoning, each without the other.
    fn output(&self) -> (u64, u64, Method) {
        let count = |answer: &[u8]| {
            let texts = text::of_answer(answer).texts;
            let mut size = TextSize::default();
            texts.iter().for_each(|text| size.add(text));
            let (tokens, by) = tokenizer::count(&self.call.upstream_model, &texts);
            (tokens, size, by)
        };
        match &self.content.response {
            Captured::Nothing => (0, 0, Method::Tokenizer),
            Captured::Body(body) => {
                let (tokens, _, by) = count(body);
                (tokens, 0, by)
            }
            Captured::Part(body) => {
                let (tokens, _, by) = count(body);
                let share = self.content.response_bytes as f64 / body.len().max(1) as f64;
                ((tokens as f64 * share) as u64, 0, by)
            }
            Captured::Stream(assembly) => {
                let said = assembly.said();
                let (kept, size, by) = count(&assembly.to_json(&str::to_owned));
                let (tokens, by) = whole(said, kept, size, by);
                (tokens, said.reasoning.tokens(), by)
            }
        }
    }
}

/// Tokens of all that was said, from those of the part that was kept.
fn whole(said: Said, kept: u64, size: TextSize, by: Method) -> (u64, Method) {
    let (all, part) = (said.text.tokens(), size.tokens());
    if part == 0 {
        return (all, if all == 0 { by } else { Method::Characters });
    }
    // Rounding makes them differ by one.
    if all <= part + 1 {
        return (kept, by);
    }
    ((kept as f64 * all as f64 / part as f64).round() as u64, by)
}

fn capped(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_kept_counts_in_proportion() {
        let said = |ascii| Said {
            text: TextSize {
                ascii,
                ..TextSize::default()
            },
            ..Said::default()
        };
        let size = |ascii| said(ascii).text;
        let by = Method::Tokenizer;
        assert_eq!(whole(said(400), 90, size(400), by), (90, by), "all was kept");
        assert_eq!(whole(said(4_000), 90, size(400), by), (900, by), "a tenth was");
        assert_eq!(
            whole(said(400), 0, size(0), by),
            (100, Method::Characters),
            "nothing was"
        );
        assert_eq!(whole(said(0), 0, size(0), by), (0, by), "nothing came");
    }
}
