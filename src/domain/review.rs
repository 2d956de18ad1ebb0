//! When a proposed change may go live: who may approve it, what it still lacks.

/// Where a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeState {
    /// Not yet for others to look at.
    Draft,
    Open,
    /// Has the approvals it needs; checks may still be missing.
    Approved,
    Rejected,
    Applied,
    Withdrawn,
}

impl ChangeState {
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::Open,
        Self::Approved,
        Self::Rejected,
        Self::Applied,
        Self::Withdrawn,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Applied => "applied",
            Self::Withdrawn => "withdrawn",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether it waits for reviews and checks.
    pub fn is_under_review(self) -> bool {
        matches!(self, Self::Open | Self::Approved)
    }

    /// Whether nothing can come of it any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Applied | Self::Withdrawn)
    }
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    Pending,
    Pass,
    Fail,
}

impl CheckState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Pass, Self::Fail]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// What an environment asks of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy<'a> {
    /// 0 where the environment is not protected.
    pub approvals: u32,
    pub required_checks: &'a [String],
}

/// What a change still lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    pub approvals_given: u32,
    pub approvals_needed: u32,
    /// Required checks that did not pass.
    pub checks: Vec<(String, CheckState)>,
}

impl Lack {
    /// Compares what a change has for its present revision with what is asked.
    pub fn of(policy: &Policy<'_>, approvals: u32, checks: &[(String, CheckState)]) -> Self {
        let state = |name: &String| {
            let found = checks.iter().find(|(reported, _)| reported == name);
            found.map_or(CheckState::Pending, |(_, state)| *state)
        };
        let unmet = policy
            .required_checks
            .iter()
            .map(|name| (name.clone(), state(name)))
            .filter(|(_, state)| *state != CheckState::Pass);
        Self {
            approvals_given: approvals,
            approvals_needed: policy.approvals,
            checks: unmet.collect(),
        }
    }

    pub fn has_approvals(&self) -> bool {
        self.approvals_given >= self.approvals_needed
    }

    pub fn is_nothing(&self) -> bool {
        self.has_approvals() && self.checks.is_empty()
    }
}

/// Says why somebody may not approve a change, if so: nobody approves what they proposed or wrote.
///
/// # Errors
/// A sentence that says what they did.
pub fn may_approve(reviewer: &str, proposer: &str, authors: &[String]) -> Result<(), String> {
    if reviewer == proposer {
        return Err("you proposed this change, somebody else must approve it".to_owned());
    }
    if authors.iter().any(|author| author == reviewer) {
        return Err("you wrote a version that this change makes live, somebody else must approve it".to_owned());
    }
    Ok(())
}

/// Returns the smallest value that at least `percent` of the values do not exceed; `None` without values.
pub fn percentile(values: &mut [i64], percent: u32) -> Option<i64> {
    values.sort_unstable();
    let place = (values.len() * percent as usize).div_ceil(100).max(1);
    values.get(place - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_lacks_approvals_and_checks_until_it_has_them() {
        let required = ["eval".to_owned(), "lint".to_owned()];
        let policy = Policy {
            approvals: 2,
            required_checks: &required,
        };
        let check = |name: &str, state| (name.to_owned(), state);
        for (approvals, checks, lacking) in [
            (0, vec![], Some(vec!["eval", "lint"])),
            (2, vec![check("eval", CheckState::Pass)], Some(vec!["lint"])),
            (
                2,
                vec![check("eval", CheckState::Pass), check("lint", CheckState::Fail)],
                Some(vec!["lint"]),
            ),
            (
                2,
                vec![
                    check("eval", CheckState::Pass),
                    check("lint", CheckState::Pass),
                    check("extra", CheckState::Fail),
                ],
                None,
            ),
            (
                1,
                vec![check("eval", CheckState::Pass), check("lint", CheckState::Pass)],
                Some(vec![]),
            ),
        ] {
            let lack = Lack::of(&policy, approvals, &checks);
            let names: Vec<&str> = lack.checks.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!((!lack.is_nothing()).then_some(names), lacking, "{approvals} {checks:?}");
        }
    }

    #[test]
    fn nobody_approves_what_they_proposed_or_wrote() {
        let authors = ["ada".to_owned(), "bob".to_owned()];
        assert!(may_approve("ada", "eve", &authors).is_err());
        assert!(may_approve("eve", "eve", &authors).is_err());
        assert_eq!(may_approve("rob", "eve", &authors), Ok(()));
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        assert_eq!(percentile(&mut [], 50), None);
        assert_eq!(percentile(&mut [7], 90), Some(7));
        assert_eq!(percentile(&mut [4, 1, 3, 2], 50), Some(2));
        assert_eq!(percentile(&mut [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 90), Some(9));
    }
}
