//! Durations (`"250ms"`, `"30s"`) and sizes (`"64MiB"`, `"1MB"`) as people write them.

use std::time::Duration;

use super::problem::shown;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Units of a duration, in milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of a size in bytes, largest first; those of the metric system are for reading only.
const BINARY_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
const METRIC_UNITS: [(&str, u64); 5] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
];

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let millis = parse(text, DURATION_UNITS.iter());
    millis.map(Duration::from_millis).ok_or_else(|| {
        let text = shown(text);
        format!(r#"{text} is not a duration, write e.g. "30s" (units: ms, s, m, h)"#)
    })
}

/// Bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let units = BINARY_UNITS.iter().chain(&METRIC_UNITS);
    parse(text, units).ok_or_else(|| {
        let text = shown(text);
        format!(r#"{text} is not a size, write e.g. "64MiB" (units: B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB)"#)
    })
}

pub(super) fn show_duration(duration: &Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATION_UNITS)
}

pub(super) fn show_size(bytes: &u64) -> String {
    show(*bytes, &BINARY_UNITS)
}

fn parse<'u>(text: &str, mut units: impl Iterator<Item = &'u (&'u str, u64)>) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that needs no fraction.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |unit: &&(&str, u64)| amount >= unit.1 && amount.is_multiple_of(unit.1);
    let smallest = units.last().expect("a list of units is not empty");
    let (unit, factor) = units.iter().find(fits).unwrap_or(smallest);
    format!("{}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_read() {
        let millis = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("5 m"), Ok(300_000));
        assert_eq!(millis("2h"), Ok(7_200_000));
    }

    #[test]
    fn durations_without_number_or_unit_are_refused() {
        let wrong = [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 sec",
            "1S",
            "s30",
            "99999999999999999999h",
        ];
        for text in wrong {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("18446744073709551615h").is_err());
    }

    #[test]
    fn sizes_binary_and_metric_are_read() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("16GiB"), Ok(16 << 30));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        assert_eq!(parse_size("100kB"), Ok(100_000));
        assert_eq!(parse_size("512B"), Ok(512));
        for text in ["64", "64M", "64mb", "MiB", "1.5GiB", "999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_in_the_largest_whole_unit() {
        assert_eq!(show_duration(&Duration::from_secs(900)), "15m");
        assert_eq!(show_duration(&Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(&Duration::ZERO), "0ms");
        assert_eq!(show_size(&(16 << 30)), "16GiB");
        assert_eq!(show_size(&1_000), "1000B");
    }
}
