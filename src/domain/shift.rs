//! Shifts: plans that move a prompt's live split step by step, at given times or one after the other.

use serde::{Deserialize, Serialize};

use crate::domain::split::{Arm, upper_bounds};

/// The most steps of one plan.
pub const MAX_STEPS: usize = 20;

/// How far ahead a step may be, in microseconds: 90 days.
const MAX_AHEAD_US: i64 = 90 * 24 * 3600 * 1_000_000;

/// The new version's shares of a gradual shift for which nobody named any, in percent.
pub const USUAL_PERCENTS: [f64; 3] = [5.0, 25.0, 100.0];

/// When a step is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Microseconds since the Unix epoch.
    At(i64),
    /// Microseconds after the step before it was carried out; for the first, after the plan was made.
    After(i64),
}

/// What to make live, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub due: Due,
    pub split: Vec<Arm>,
}

/// What somebody plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    Steps(Vec<Step>),
    /// To one version, in shares of percent.
    Gradual {
        version: u32,
        steps: Vec<(Due, f64)>,
    },
}

impl Plan {
    /// Works out the steps on top of what is live, for a plan made at `now_us`.
    ///
    /// # Errors
    /// Those of [`gradual`] and [`check`].
    pub fn steps(&self, live: &[Arm], now_us: i64) -> Result<Vec<Step>, String> {
        let steps = match self {
            Self::Steps(steps) => steps.clone(),
            Self::Gradual { version, steps } => {
                let (dues, percents): (Vec<Due>, Vec<f64>) = steps.iter().copied().unzip();
                let splits = gradual(live, *version, &percents)?;
                let pair = |(due, split)| Step { due, split };
                dues.into_iter().zip(splits).map(pair).collect()
            }
        };
        check(&steps, now_us)?;
        Ok(steps)
    }
}

/// Says what is wrong with a plan made at `now_us`, if anything.
///
/// # Errors
/// A sentence that names the step.
pub fn check(steps: &[Step], now_us: i64) -> Result<(), String> {
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Err(format!(
            "a plan has 1 to {MAX_STEPS} steps, this one has {}",
            steps.len()
        ));
    }
    let mut earliest = now_us;
    for (at, step) in (1..).zip(steps) {
        let wrong = |why: &str| Err(format!("step {at}: {why}"));
        upper_bounds(&step.split).map_err(|why| format!("step {at}: {why}"))?;
        let due = match step.due {
            Due::At(due) => due,
            Due::After(after) if (0..=MAX_AHEAD_US).contains(&after) => earliest.saturating_add(after),
            Due::After(_) => return wrong("\"after\" must be between 0 and 90 days"),
        };
        if due < earliest {
            return wrong(match at {
                1 => "its time is past, leave \"at\" out to begin now",
                _ => "it would be due before the step in front of it",
            });
        }
        if due > now_us.saturating_add(MAX_AHEAD_US) {
            return wrong("it is more than 90 days ahead");
        }
        earliest = due;
    }
    Ok(())
}

/// Returns the splits that move everybody from what is live to `version`: the new one is the last arm, so that a unit
/// that got it keeps it.
///
/// # Errors
/// A sentence when more than one arm is live, that version is live already, or the shares do not grow to at most 100.
pub fn gradual(live: &[Arm], version: u32, percents: &[f64]) -> Result<Vec<Vec<Arm>>, String> {
    let [present] = live else {
        return Err(match live.len() {
            0 => "nothing is live there, deploy the first version at once".to_owned(),
            arms => format!("{arms} arms are live there, give each step's \"split\""),
        });
    };
    if present.version == version {
        return Err(format!("version {version} is live already"));
    }
    let newcomer = if present.variant == "next" { "control" } else { "next" };
    let mut last = 0.0;
    let split = |&percent: &f64| {
        if !(percent > last && percent <= 100.0) {
            return Err(format!("percent {percent}: shares must grow, up to 100"));
        }
        last = percent;
        // Whole everybody goes under the name that was there, as if the version had been deployed.
        if percent >= 100.0 {
            return Ok(vec![Arm {
                version,
                ..present.clone()
            }]);
        }
        // To two decimals, as weights are.
        let rest = ((100.0 - percent) * 100.0).round() / 100.0;
        Ok(vec![
            Arm {
                weight: rest,
                ..present.clone()
            },
            Arm {
                variant: newcomer.to_owned(),
                version,
                weight: percent,
            },
        ])
    };
    percents.iter().map(split).collect()
}

/// Reads `30s`, `10m`, `2h` or `1d` as microseconds.
///
/// # Errors
/// A sentence with the forms there are.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration, write for instance \"30s\", \"10m\", \"2h\" or \"1d\"");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds * 1_000_000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(variant: &str, version: u32, weight: f64) -> Arm {
        Arm {
            variant: variant.to_owned(),
            version,
            weight,
        }
    }

    fn step(due: Due) -> Step {
        Step {
            due,
            split: vec![arm("control", 1, 100.0)],
        }
    }

    #[test]
    fn gradual_shift_grows_the_last_arm_and_ends_with_one() {
        let live = [arm("control", 3, 100.0)];
        assert_eq!(
            gradual(&live, 4, &[5.0, 33.33, 100.0]).unwrap(),
            [
                vec![arm("control", 3, 95.0), arm("next", 4, 5.0)],
                vec![arm("control", 3, 66.67), arm("next", 4, 33.33)],
                vec![arm("control", 4, 100.0)],
            ]
        );
        for (live, version, percents) in [
            (&[][..], 4, &[100.0][..]),
            (&live, 3, &[100.0]),
            (&live, 4, &[5.0, 5.0]),
            (&live, 4, &[0.0]),
            (&live, 4, &[101.0]),
            (&live, 4, &[f64::NAN]),
            (&[arm("a", 1, 50.0), arm("b", 2, 50.0)], 4, &[100.0]),
        ] {
            assert!(
                gradual(live, version, percents).is_err(),
                "{live:?} {version} {percents:?}"
            );
        }
    }

    #[test]
    fn plan_must_go_forward_and_not_too_far() {
        let ok = |steps: &[Step]| check(steps, 1_000).is_ok();
        assert!(ok(&[step(Due::After(0)), step(Due::After(5)), step(Due::At(1_005))]));
        assert!(!ok(&[]));
        assert!(!ok(&[step(Due::At(999))]));
        assert!(!ok(&[step(Due::After(10)), step(Due::At(1_009))]));
        assert!(!ok(&[step(Due::After(-1))]));
        assert!(!ok(&[step(Due::At(i64::MAX))]));
        assert!(!ok(&vec![step(Due::After(1)); 21]));
        let empty = Step {
            due: Due::After(0),
            split: Vec::new(),
        };
        assert!(!ok(&[empty]));
    }

    #[test]
    fn durations_are_read_or_refused() {
        assert_eq!(parse_duration("10m"), Ok(600_000_000));
        assert_eq!(parse_duration("1d"), Ok(86_400_000_000));
        for bad in ["", "10", "m", "1.5h", "-1s", "9999999999999d", "5 m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
