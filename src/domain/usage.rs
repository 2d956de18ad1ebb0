//! Token counts of one exchange.

/// Tokens as the provider counts them; `cached_input` is part of `input`, `reasoning` part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input: u32,
    pub cached_input: u32,
    pub output: u32,
    pub reasoning: u32,
    pub total: u32,
}

impl Usage {
    /// Completes what a provider had counted before its answer broke off with an estimate of the whole.
    ///
    /// The input it counted is right; its output is what had come by then, so the larger of the two.
    pub fn completed_by(self, estimate: Usage) -> Usage {
        let input = if self.input > 0 { self.input } else { estimate.input };
        let output = self.output.max(estimate.output);
        Usage {
            input,
            cached_input: self.cached_input,
            output,
            reasoning: self.reasoning.max(estimate.reasoning),
            total: input.saturating_add(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimate_completes_what_the_provider_had_counted() {
        let usage = |input, cached_input, output, reasoning, total| Usage {
            input,
            cached_input,
            output,
            reasoning,
            total,
        };
        let estimate = usage(11, 0, 7, 2, 18);
        for (given, whole) in [
            (usage(0, 0, 0, 0, 0), estimate),
            (usage(10, 4, 0, 0, 10), usage(10, 4, 7, 2, 17)),
            (usage(10, 4, 9, 3, 19), usage(10, 4, 9, 3, 19)),
        ] {
            assert_eq!(given.completed_by(estimate), whole);
        }
    }
}
