//! Where a rollback goes when nobody says.
//!
//! Deployments form a line of thought: a deployment follows the one before it, a rollback *returns* to the one it
//! reproduces and goes on from there. Walking that line back, what was rolled back from, and what a rollback passed
//! over, is never met again. So rolling back twice goes two steps back instead of ping-pong, and after a rollback and a
//! new deployment it skips what was given up.

use crate::domain::split::Arm;

/// What a rollback needs to know of a deployment; the history's first one has number 1, and none is missing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Past {
    pub split: Vec<Arm>,
    pub rolled_back_to: Option<u32>,
    /// Nobody approved it, or nothing was live: it can only be named.
    pub passed_over: bool,
}

/// Returns the number of the deployment to return to from the last one, if any.
pub(super) fn previous(history: &[Past]) -> Option<u32> {
    let live = &history.last()?.split;
    let mut number = history.len();
    while number > 0 {
        let past = &history[number - 1];
        if past.split != *live && !past.passed_over {
            return u32::try_from(number).ok();
        }
        number = match past.rolled_back_to {
            // Always an earlier one; the minimum makes sure that this ends whatever the table says.
            Some(target) => (target as usize).min(number - 1),
            None => number - 1,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(version: u32) -> Vec<Arm> {
        vec![Arm {
            variant: "control".to_owned(),
            version,
            weight: 100.0,
        }]
    }

    fn deploy(history: &mut Vec<Past>, version: u32) {
        history.push(Past {
            split: split(version),
            rolled_back_to: None,
            passed_over: false,
        });
    }

    /// Rolls back and returns the version that is live then.
    fn rollback(history: &mut Vec<Past>, to: Option<u32>) -> Option<u32> {
        let target = to.or_else(|| previous(history))?;
        let split = history[target as usize - 1].split.clone();
        let version = split[0].version;
        history.push(Past {
            split,
            rolled_back_to: Some(target),
            passed_over: false,
        });
        Some(version)
    }

    #[test]
    fn rollback_twice_goes_two_steps_back_and_then_ends() {
        let mut history = Vec::new();
        for version in 1..=3 {
            deploy(&mut history, version);
        }
        assert_eq!(rollback(&mut history, None), Some(2));
        assert_eq!(rollback(&mut history, None), Some(1));
        assert_eq!(rollback(&mut history, None), None);
    }

    #[test]
    fn rollback_after_a_new_deployment_skips_what_was_given_up() {
        let mut history = Vec::new();
        deploy(&mut history, 1);
        deploy(&mut history, 2);
        assert_eq!(rollback(&mut history, None), Some(1));
        deploy(&mut history, 3);
        assert_eq!(previous(&history), Some(3));
        assert_eq!(rollback(&mut history, None), Some(1));
        assert_eq!(rollback(&mut history, None), None);
    }

    #[test]
    fn rollback_skips_deployments_that_changed_nothing() {
        let mut history = Vec::new();
        for version in [1, 2, 2, 2] {
            deploy(&mut history, version);
        }
        assert_eq!(rollback(&mut history, None), Some(1));
    }

    #[test]
    fn rollback_after_a_named_one_goes_on_from_there() {
        let mut history = Vec::new();
        for version in 1..=4 {
            deploy(&mut history, version);
        }
        assert_eq!(rollback(&mut history, Some(2)), Some(2));
        assert_eq!(rollback(&mut history, None), Some(1), "3 was passed over");
    }

    #[test]
    fn rollback_may_return_to_what_was_given_up_when_named() {
        let mut history = Vec::new();
        deploy(&mut history, 1);
        deploy(&mut history, 2);
        assert_eq!(rollback(&mut history, None), Some(1));
        assert_eq!(rollback(&mut history, Some(2)), Some(2));
        assert_eq!(rollback(&mut history, None), Some(1));
    }

    #[test]
    fn rollback_passes_over_what_nobody_approved() {
        let mut history = Vec::new();
        for version in 1..=3 {
            deploy(&mut history, version);
        }
        history[1].passed_over = true;
        assert_eq!(rollback(&mut history, None), Some(1));
    }

    #[test]
    fn rollback_without_history_has_no_target() {
        assert_eq!(previous(&[]), None);
        let mut history = Vec::new();
        deploy(&mut history, 1);
        assert_eq!(previous(&history), None);
    }
}
