//! Splits and the assignment of units to variants.
//!
//! The assignment is stateless and reproducible in any language: the same unit keeps its variant across processes,
//! nodes, restarts and unrelated changes, and growing the last arm moves only units at its boundary.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many buckets a split divides; one is 0.01 percent.
pub const BUCKETS: u16 = 10_000;

/// The most arms of one split.
pub const MAX_ARMS: usize = 32;

/// One arm of a split as written over the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub variant: String,
    pub version: u32,
    /// Percent, at most two decimals.
    pub weight: f64,
}

/// Computes the bucket in `[0, 10000)` of a unit.
///
/// `h` is the first 8 bytes, big endian, of SHA-256(salt ‖ 0x00 ‖ unit); the bucket is `(h * 10000) >> 64`.
pub fn bucket(salt: &[u8], unit: &[u8]) -> u16 {
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update([0])
        .chain_update(unit)
        .finalize();
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    let h = u64::from_be_bytes(head);
    ((u128::from(h) * u128::from(BUCKETS)) >> 64) as u16
}

/// Returns the salt of a deployment that is not an experiment: `prompt id ‖ "@" ‖ environment`.
pub fn deployment_salt(prompt_id: &str, environment: &str) -> String {
    format!("{prompt_id}@{environment}")
}

/// Turns weights into the exclusive upper bound of each arm's bucket range, in order.
///
/// # Errors
/// A sentence when there is no arm, too many, a repeated variant, a weight that is negative or has more than two
/// decimals, or a total that is not exactly 100.
pub fn upper_bounds(arms: &[Arm]) -> Result<Vec<u16>, String> {
    if arms.is_empty() {
        return Err("a split needs at least one arm".to_owned());
    }
    if arms.len() > MAX_ARMS {
        return Err(format!(
            "a split has at most {MAX_ARMS} arms, this one has {}",
            arms.len()
        ));
    }
    let mut total = 0u32;
    let mut bounds = Vec::with_capacity(arms.len());
    for (i, arm) in arms.iter().enumerate() {
        crate::domain::prompt::validate_name("variant", &arm.variant)?;
        if arm.variant == "pinned" {
            return Err("variant \"pinned\" is reserved for requests that name their version".to_owned());
        }
        if arms[..i].iter().any(|other| other.variant == arm.variant) {
            return Err(format!("variant {:?} appears twice", arm.variant));
        }
        total += basis_points(arm)?;
        bounds.push(total.min(u32::from(BUCKETS)) as u16);
    }
    if total != u32::from(BUCKETS) {
        return Err(format!(
            "the weights add up to {}, they must add up to exactly 100",
            f64::from(total) / 100.0
        ));
    }
    Ok(bounds)
}

fn basis_points(arm: &Arm) -> Result<u32, String> {
    let (variant, weight) = (&arm.variant, arm.weight);
    if !(0.0..=100.0).contains(&weight) {
        return Err(format!(
            "weight {weight} of variant {variant:?} is not between 0 and 100"
        ));
    }
    let points = (weight * 100.0).round();
    if (points - weight * 100.0).abs() > 1e-6 {
        return Err(format!(
            "weight {weight} of variant {variant:?} has more than two decimals"
        ));
    }
    Ok(points as u32)
}

/// Returns the index of the arm that owns `bucket`.
pub fn arm_of(bounds: impl IntoIterator<Item = u16>, bucket: u16) -> usize {
    bounds
        .into_iter()
        .position(|upper| bucket < upper)
        .expect("the last bound of a split is 10000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arms(weights: &[f64]) -> Vec<Arm> {
        let arm = |(i, weight): (usize, &f64)| Arm {
            variant: format!("v{i}"),
            version: 1,
            weight: *weight,
        };
        weights.iter().enumerate().map(arm).collect()
    }

    /// The vectors that `docs/assignment.md` shows, computed with Python's hashlib.
    #[test]
    fn bucket_matches_the_documented_vectors() {
        let salt = deployment_salt("support/greet", "production");
        assert_eq!(salt, "support/greet@production");
        let buckets: Vec<u16> = ["user-1", "user-2", "user-3", "", "Zoë"]
            .iter()
            .map(|unit| bucket(salt.as_bytes(), unit.as_bytes()))
            .collect();
        assert_eq!(buckets, VECTORS);
    }

    const VECTORS: [u16; 5] = [2216, 9311, 3882, 3709, 487];

    #[test]
    fn documentation_shows_the_vectors() {
        let text = include_str!("../../docs/assignment.md");
        for (unit, bucket) in ["`user-1`", "`user-2`", "`user-3`", "(empty)", "`Zoë`"]
            .iter()
            .zip(VECTORS)
        {
            let row = format!("| {unit} | {bucket} |");
            assert!(text.contains(&row), "docs/assignment.md lacks {row}");
        }
    }

    #[test]
    fn weights_that_do_not_make_100_are_refused() {
        assert_eq!(upper_bounds(&arms(&[80.0, 20.0])), Ok(vec![8000, 10_000]));
        assert_eq!(
            upper_bounds(&arms(&[33.33, 33.33, 33.34])),
            Ok(vec![3333, 6666, 10_000])
        );
        assert_eq!(upper_bounds(&arms(&[100.0, 0.0])), Ok(vec![10_000, 10_000]));
        for bad in [
            &[][..],
            &[99.99],
            &[50.0, 50.01],
            &[-1.0, 101.0],
            &[33.333, 66.667],
            &[f64::NAN],
        ] {
            assert!(upper_bounds(&arms(bad)).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn growing_the_last_arm_only_moves_units_at_its_boundary(unit in ".*", first in 1u16..=9_999, grow in 0u16..1_000) {
            let b = bucket(b"salt", unit.as_bytes());
            let smaller = first.saturating_sub(grow);
            let before = arm_of([first, BUCKETS], b);
            let after = arm_of([smaller, BUCKETS], b);
            prop_assert!(b < BUCKETS);
            prop_assert!(before == after || (smaller..first).contains(&b));
        }
    }
}
