use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SCHEMA: u32 = 7;
const KIND: u8 = 1;

fn key(number: u16) -> Key {
    let mut key = [9; KEY_LEN];
    key[..2].copy_from_slice(&number.to_le_bytes());
    key
}

fn open(log: &mut OpenLog, number: u16, bytes: usize) {
    log.opened(KIND, |out| {
        out.extend_from_slice(&key(number));
        out.resize(out.len() + bytes, b'x');
    });
}

fn log(folder: &Path) -> OpenLog {
    OpenLog::new(folder.to_path_buf(), "1-a", 0, SCHEMA)
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
        .collect()
}

/// Recovers as the next start does; returns the numbers of the records found open.
fn recovered(folder: &Path, segments: &[Sealed]) -> BTreeSet<u16> {
    let sealed = recover_logs(folder, logs(folder), segments).unwrap();
    assert!(logs(folder).is_empty(), "the logs are turned into segments");
    let mut found = BTreeSet::new();
    for sealed in sealed {
        assert!(sealed.sequence >= ABORTED_SEQUENCE);
        let bytes = sealed.read().unwrap();
        let segment = recover(&bytes).unwrap();
        assert_eq!(segment.header.schema, SCHEMA);
        assert_eq!(segment.seal.unwrap(), segment.found());
        for frame in &segment.frames {
            assert_eq!(frame.kind, KIND);
            let key = key_of(frame.payload).unwrap();
            assert!(found.insert(u16::from_le_bytes([key[0], key[1]])), "each once");
        }
    }
    found
}

#[test]
fn crash_leaves_what_is_open_and_not_what_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path());
    for number in 0..5 {
        open(&mut log, number, 100);
    }
    log.flush();
    log.closed(key(1));
    log.closed(key(3));
    log.closed(key(77));
    assert!(log.flush().is_some());
    assert!(log.flush().is_none(), "nothing is left to write");
    drop(log);
    assert_eq!(recovered(dir.path(), &[]), BTreeSet::from([0, 2, 4]));
}

#[test]
fn what_was_not_flushed_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path());
    open(&mut log, 1, 10);
    log.flush();
    open(&mut log, 2, 10);
    log.closed(key(1));
    drop(log);
    assert_eq!(recovered(dir.path(), &[]), BTreeSet::from([1]));
}

#[test]
fn record_in_a_segment_is_not_open_although_nobody_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = log(dir.path());
    open(&mut first, 1, 10);
    open(&mut first, 2, 10);
    first.flush();
    drop(first);
    // What a process does that dies between two files: the segments are made, the logs are still there.
    let copies: Vec<(PathBuf, Vec<u8>)> = logs(dir.path())
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let segments = recover_logs(dir.path(), logs(dir.path()), &[]).unwrap();
    assert_eq!(segments.len(), 1);
    for (path, bytes) in copies {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(recovered(dir.path(), &segments), BTreeSet::new());
}

#[test]
fn close_with_nothing_open_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path());
    open(&mut log, 1, 10);
    log.flush();
    assert_eq!(logs(dir.path()).len(), 1);
    log.closed(key(1));
    log.close();
    assert!(logs(dir.path()).is_empty());
}

#[test]
fn one_long_call_does_not_keep_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path());
    open(&mut log, 0, 1000);
    log.flush();
    // Some 13 files' worth of calls that come and go.
    for number in 1..=1000 {
        open(&mut log, number, 100 << 10);
        log.flush();
        log.closed(key(number));
        log.flush();
        assert!(log.files.len() <= FILES_MAX + 1);
    }
    assert!(logs(dir.path()).len() <= FILES_MAX + 1);
    drop(log);
    assert_eq!(recovered(dir.path(), &[]), BTreeSet::from([0]));
}

#[test]
fn folder_that_is_gone_is_made_again_and_what_closes_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("boot");
    fs::create_dir(&folder).unwrap();
    let mut log = log(&folder);
    open(&mut log, 1, 10);
    log.flush();
    fs::remove_dir_all(&folder).unwrap();
    // The file is still open: what goes into it is lost with it, and nothing fails.
    open(&mut log, 2, 10);
    assert!(log.flush().is_some());
    log.rotate();
    open(&mut log, 3, 10);
    assert!(log.flush().is_some());
    drop(log);
    assert_eq!(recovered(&folder, &[]), BTreeSet::from([3]));
}

#[derive(Debug, Clone)]
enum Step {
    Open(u16, usize),
    Close(u16),
    Flush,
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..40, 0usize..3000).prop_map(|(number, bytes)| Step::Open(number, bytes)),
        4 => (0u16..40).prop_map(Step::Close),
        2 => Just(Step::Flush),
        1 => Just(Step::Rotate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is opened, closed and flushed, a crash leaves what was open at the last flush; a write cut short costs
    /// at most what was in it.
    #[test]
    fn crash_at_any_point_leaves_what_was_open(steps in vec(step(), 0..120), torn: Option<prop::sample::Index>) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path());
        let (mut now, mut flushed, mut before) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut used = BTreeSet::new();
        // Opened since the write before the last.
        let (mut opened, mut opened_last) = (BTreeSet::new(), BTreeSet::new());
        let mut last = None;
        for step in steps {
            match step {
                // An id is used once.
                Step::Open(number, bytes) => if used.insert(number) {
                    open(&mut log, number, bytes);
                    now.insert(number);
                    opened.insert(number);
                },
                Step::Close(number) => {
                    log.closed(key(number));
                    now.remove(&number);
                }
                Step::Flush => {
                    let (path, from) = log.files.back().map(|file| (file.path.clone(), file.len)).unwrap();
                    if log.flush().is_some() {
                        before = std::mem::replace(&mut flushed, now.clone());
                        opened_last = std::mem::take(&mut opened);
                        last = Some((path, from));
                    }
                }
                Step::Rotate => if log.is_idle() && log.files.back().is_some_and(|file| file.file.is_some()) {
                    log.rotate();
                    log.tidy();
                },
            }
        }
        drop(log);
        match (torn, last) {
            (Some(torn), Some((path, from))) if path.exists() => {
                let len = fs::metadata(&path).unwrap().len();
                let cut = from + torn.index((len - from + 1) as usize) as u64;
                File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
                let found = recovered(dir.path(), &[]);
                // One that began and ended in the torn write is in a segment, which is written first.
                let both: BTreeSet<u16> = before.union(&opened_last).copied().collect();
                let kept: BTreeSet<u16> = before.intersection(&flushed).copied().collect();
                prop_assert!(found.is_subset(&both) && kept.is_subset(&found));
            }
            _ => prop_assert_eq!(recovered(dir.path(), &[]), flushed),
        }
    }
}
