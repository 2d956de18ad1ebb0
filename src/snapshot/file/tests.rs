use super::*;
use crate::registry::{EnvironmentState, Mark};

const DAY: Duration = Duration::from_secs(24 * 3600);
const REGISTRY: &str = "postgres://db/prompts";

fn delta(generation: u64, whole: bool) -> Delta {
    Delta {
        whole,
        mark: Mark::start(),
        generation,
        epoch: "epoch_1".to_owned(),

        pseudonym_key: "epoch_1".to_owned(),
        environments: vec![EnvironmentState {
            name: "production".to_owned(),
            protected: true,
        }],
        retired_names: vec!["old".to_owned()],
        prompts: Vec::new(),
        keys: Vec::new(),
    }
}

/// A file with one whole state and two additions, and its bytes.
fn written() -> (tempfile::TempDir, SnapshotFile, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let file = SnapshotFile::new(&folder.path().join("data/snapshot"), REGISTRY);
    assert!(file.write(Duration::ZERO).unwrap(), "a whole state is needed first");
    file.push(&delta(7, true));
    assert!(!file.write(Duration::ZERO).unwrap());
    file.push(&delta(8, false));
    file.push(&delta(9, false));
    // At once: nothing more has to be done for that.
    let bytes = fs::read(&file.path).unwrap();
    (folder, file, bytes)
}

fn why(file: &SnapshotFile, max_age: Duration) -> String {
    file.load(max_age).unwrap_err().to_string()
}

#[test]
fn state_is_read_back_and_belongs_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, file, _) = written();
    let loaded = file.load(DAY).unwrap();
    assert_eq!(loaded.deltas, [delta(7, true), delta(8, false), delta(9, false)]);
    assert!(loaded.age < DAY);
    assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    let later = SnapshotFile::new(&file.path, "postgres://db/other");
    assert!(why(&later, DAY).contains("another registry"));
}

#[test]
fn whole_state_takes_the_place_of_all_before() {
    let (_folder, file, _) = written();
    file.push(&delta(10, false));
    file.push(&delta(11, true));
    file.push(&delta(12, false));
    file.write(Duration::from_secs(3600)).unwrap();
    let loaded = file.load(DAY).unwrap();
    assert_eq!(loaded.deltas, [delta(11, true), delta(12, false)]);
    assert!(loaded.age >= Duration::from_secs(3599));
    assert!(why(&file, Duration::from_secs(60)).contains("snapshot_max_age is 60 s"));
    for generation in 13..13 + LEAST_ADDITIONS / 100 {
        file.push(&delta(generation, false));
    }
    assert!(
        file.write(Duration::ZERO).unwrap(),
        "a new file is asked for when the additions outgrow it"
    );
}

/// Cut anywhere, it gives an earlier state or none; with any byte changed, never another one.
#[test]
fn damage_is_an_earlier_state_or_an_error() {
    let (_folder, file, bytes) = written();
    let all = file.load(DAY).unwrap().deltas;
    for end in 0..bytes.len() {
        match file.read(&bytes[..end], Duration::MAX) {
            Ok(loaded) => assert!(all.starts_with(&loaded.deltas), "cut at {end}"),
            Err(_) => assert!(end < bytes.len() * 2 / 3, "cut at {end}"),
        }
    }
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for at in first_line + 1..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        if let Ok(loaded) = file.read(&damaged, Duration::MAX) {
            assert!(all.starts_with(&loaded.deltas), "changed at {at}");
            assert!(loaded.deltas.len() < all.len(), "changed at {at}");
        }
    }
}
