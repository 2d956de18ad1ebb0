//! Dead letters: found out, kept, shown, resent.

use super::*;
use crate::spool::format::{Header, Salt};
use crate::telemetry::dead::{DeadLetterError, letter};
use crate::telemetry::row::KIND_FEEDBACK;
use crate::telemetry::ship::Dead;

const BAD: &[u8] = b"no row";

fn encoded(i: u64) -> Vec<u8> {
    let mut row = Vec::new();
    row::encode_exchange(&record(i), &mut row);
    row
}

fn header() -> Header {
    Header {
        boot: "0001-a".to_owned(),
        worker: 0,
        sequence: 7,
        schema: row::EXCHANGE_SCHEMA_ID,
        salt: Salt([1, 2, 3, 4, 5, 6, 7, 8]),
        created_at: START,
    }
}

#[test]
fn bad_rows_of_a_segment_are_kept_apart_and_the_good_ones_stored() {
    let bench = Bench::new();
    let rows: Vec<Vec<u8>> = (0..40).map(encoded).collect();
    let mut frames: Vec<(u8, &[u8])> = rows.iter().map(|row| (KIND_EXCHANGE, &row[..])).collect();
    frames.insert(20, (KIND_EXCHANGE, BAD));
    frames.insert(10, (KIND_FEEDBACK, BAD));
    frames.insert(0, (77, b"of a newer build"));
    leave(&bench, "0001-a", row::EXCHANGE_SCHEMA_ID, &frames);
    let telemetry = bench.start();
    let (stats, shipped) = (telemetry.stats(), telemetry.ship_stats());
    assert_eq!(bench.count(telemetry), 40);
    assert_eq!((stats.figures().shipped, stats.figures().dead_segments), (40, 0));
    assert_eq!(
        (shipped.dead_rows.load(Relaxed), stats.figures().unshipped_bytes),
        (3, 0)
    );

    let letters = DeadLetters::of(&bench.spool_dir());
    let list = letters.list().unwrap();
    assert_eq!((list.len(), list[0].rows, list[0].resending), (1, 3, false));
    assert!(
        list[0].name.starts_with("0001-a-0-") && list[0].reason.contains("row ends at byte 6"),
        "{list:?}"
    );
    let shown = letters.show(&list[0].name).unwrap();
    let kinds: Vec<&str> = shown.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["exchange", "feedback", "77"]);
    assert_eq!(shown[0].record, json!({"bytes": 6, "begins": "6e6f20726f77"}));
    assert!(shown[2].reason.contains("frame kind 77"), "{shown:?}");

    // The same rows resent are still bad: they come back under the same name.
    letters.resend(&list[0].name).unwrap();
    assert!(matches!(
        letters.resend(&list[0].name),
        Err(DeadLetterError::Resending(_))
    ));
    let telemetry = bench.start();
    let shipped = telemetry.ship_stats();
    let end = std::time::Instant::now() + DEADLINE;
    while shipped.dead_rows.load(Relaxed) < 3 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(bench.count(telemetry), 40);
    assert_eq!(letters.list().unwrap(), list);
    letters.remove(&list[0].name).unwrap();
    assert_eq!(letters.list().unwrap(), []);
}

#[test]
fn segment_of_a_newer_build_is_resent_once_its_build_is_there() {
    let bench = Bench::new();
    let row = encoded(1);
    leave(&bench, "0001-a", 99, &[(KIND_EXCHANGE, &row)]);
    assert_eq!(bench.count(bench.start()), 0);
    let letters = DeadLetters::of(&bench.spool_dir());
    let list = letters.list().unwrap();
    assert!(list[0].reason.contains("schema 99") && list[0].rows == 1, "{list:?}");
    // This build is not that one: the file comes back whole.
    letters.resend(&list[0].name).unwrap();
    let telemetry = bench.start();
    let end = std::time::Instant::now() + DEADLINE;
    while letters.list().unwrap() != list {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(bench.count(telemetry), 0);
}

#[test]
fn letters_resent_while_a_gateway_runs_are_stored_once() {
    let bench = Bench::new();
    let letters = DeadLetters::of(&bench.spool_dir());
    let rows: Vec<Vec<u8>> = (0..3).map(encoded).collect();
    let dead: Vec<Dead<'_>> = rows
        .iter()
        .map(|row| Dead {
            kind: KIND_EXCHANGE,
            row,
            reason: "of a table that was changed".to_owned(),
        })
        .collect();
    let telemetry = bench.start();
    let shipped = telemetry.ship_stats();
    for times in 1..=2 {
        // Some rows are in the store already when the second comes.
        let (name, bytes) = letter(&header(), &dead[..times + 1]);
        letters.write(&name, &bytes).unwrap();
        let shown = letters.show(&name).unwrap();
        assert_eq!(shown[0].record["exchange_id"], json!(record(0).exchange_id.to_string()));
        assert_eq!(shown[0].reason, "of a table that was changed");
        letters.resend(&name).unwrap();
        let end = std::time::Instant::now() + DEADLINE;
        while !letters.list().unwrap().is_empty() {
            assert!(std::time::Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!((shipped.resent_rows.load(Relaxed), bench.count(telemetry)), (5, 3));
}

#[test]
fn only_listed_letters_can_be_named() {
    let bench = Bench::new();
    let letters = DeadLetters::of(&bench.spool_dir());
    assert_eq!(letters.list().unwrap(), []);
    fs::create_dir_all(bench.spool_dir().join("dead/resend")).unwrap();
    fs::write(bench.spool_dir().join("lock"), b"x").unwrap();
    fs::write(letters.folder().join(".half.seg"), b"x").unwrap();
    fs::write(letters.folder().join("torn.seg"), b"x").unwrap();
    for name in ["../lock", "resend", ".half.seg", "", "gone.seg"] {
        let error = letters.remove(name).unwrap_err();
        assert!(matches!(error, DeadLetterError::Absent { .. }), "{name}: {error}");
    }
    assert_eq!(letters.list().unwrap().len(), 1);
    assert!(matches!(
        letters.show("torn.seg"),
        Err(DeadLetterError::Unreadable { .. })
    ));
    letters.remove("torn.seg").unwrap();
    assert!(bench.spool_dir().join("lock").exists());
}
