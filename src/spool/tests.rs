//! The spool on a real folder: what is written survives, whatever is done to the process and the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;

use super::recover::recover;
use super::*;

mod model;

const KIND: u8 = 1;

fn options(folder: &Path, boot: &str) -> SpoolOptions {
    let mut options = SpoolOptions::new(folder.to_path_buf(), boot.into(), 7, 2, Duration::from_secs(1));
    options.segment_bytes = 64 << 10;
    options
}

/// Runs `test` on a current-thread runtime with a paused clock, as a worker does; dropping both is the crash.
fn on_worker<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn append(writer: &Writer, payload: &str) -> Ticket {
    let appended = writer.append(KIND, |b| b.extend_from_slice(payload.as_bytes()));
    appended.unwrap_or_else(|why| writer.lose(why))
}

fn payloads(sealed: &Sealed) -> Vec<String> {
    let bytes = sealed.read().unwrap();
    let recovered = recover(&bytes).unwrap();
    assert_eq!(
        (recovered.header.boot.as_str(), recovered.header.sequence),
        (sealed.boot.as_str(), sealed.sequence)
    );
    recovered
        .frames
        .iter()
        .map(|f| String::from_utf8(f.payload.to_vec()).unwrap())
        .collect()
}

fn received(receiver: &mut UnboundedReceiver<Sealed>) -> Vec<Sealed> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

fn segment_files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|d| d.map(|e| e.unwrap().path()).collect())
        .unwrap_or_default()
}

#[test]
fn writer_crash_without_close_keeps_every_flushed_record() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, receiver) = Spool::open(options(dir.path(), "1-a")).unwrap();
    on_worker(async {
        let writer = spool.writer_seed(0).start();
        let tasks = (0..5).map(|task| {
            let writer = writer.clone();
            tokio::task::spawn_local(async move {
                for i in 0..40 {
                    let ticket = append(&writer, &format!("{task}/{i}"));
                    writer.flushed(ticket).await;
                    assert!(writer.is_flushed(ticket));
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    let figures = spool.stats().figures();
    assert_eq!((figures.appended, figures.lost, figures.sealed_segments), (200, 0, 0));
    assert_eq!(figures.flushes, 40, "five tasks share a write a tick");
    drop((spool, receiver));

    let (spool, mut receiver) = Spool::open(options(dir.path(), "2-a")).unwrap();
    let sealed = received(&mut receiver);
    assert_eq!(sealed.len(), 1);
    let mut got = payloads(&sealed[0]);
    let mut wanted: Vec<String> = (0..5).flat_map(|t| (0..40).map(move |i| format!("{t}/{i}"))).collect();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
    assert_eq!((sealed[0].schema, sealed[0].worker, sealed[0].frames), (7, 0, 200));
    assert_eq!(spool.stats().figures().recovered_frames, 200);
}

#[test]
fn writer_seals_by_age_and_recycled_files_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut receiver) = Spool::open(options(dir.path(), "1-a")).unwrap();
    on_worker(async {
        let writer = spool.writer_seed(1).start();
        for round in 0..8 {
            let ticket = append(&writer, &format!("round {round}"));
            writer.flushed(ticket).await;
            assert!(receiver.try_recv().is_err(), "not before its time");
            let sealed = receiver.recv().await.unwrap();
            assert_eq!(payloads(&sealed), [format!("round {round}")]);
            assert_eq!(sealed.token(), format!("1-a/1-{}", round + 1));
            spool.disposal().recycle(&sealed).unwrap();
        }
        writer.close().await;
    });
    let figures = spool.stats().figures();
    assert_eq!(
        (
            figures.sealed_segments,
            figures.unshipped_bytes,
            figures.oldest_unshipped_at
        ),
        (8, 0, None)
    );
    assert!(figures.recycled_segments >= 4, "{figures:?}");
    assert!(segment_files(&dir.path().join("1-a")).is_empty());
    assert!(segment_files(&dir.path().join("pool")).len() <= 6);
}

#[test]
fn writer_full_segment_goes_on_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut receiver) = Spool::open(options(dir.path(), "1-a")).unwrap();
    let wanted: Vec<String> = (0..100).map(|i| format!("{i:0>4000}")).collect();
    on_worker(async {
        let writer = spool.writer_seed(0).start();
        let tickets: Vec<Ticket> = wanted.iter().map(|p| append(&writer, p)).collect();
        writer.flushed(tickets[99]).await;
        let refused = writer.append(KIND, |b| b.resize(64 << 10, 1));
        writer.flushed(refused.unwrap_or_else(|why| writer.lose(why))).await;
        writer.close().await;
        let late = append(&writer, "after close");
        assert!(writer.is_flushed(late));
    });
    let sealed = received(&mut receiver);
    assert_eq!(sealed.len(), 100_usize.div_ceil(15));
    assert_eq!(sealed.iter().flat_map(payloads).collect::<Vec<_>>(), wanted);
    let figures = spool.stats().figures();
    assert_eq!(
        (figures.appended, figures.lost, figures.too_large, figures.flushes),
        (102, 1, 1, 2)
    );
    drop((spool, receiver));
    let (_spool, mut receiver) = Spool::open(options(dir.path(), "2-a")).unwrap();
    assert_eq!(
        received(&mut receiver).iter().flat_map(payloads).next_back().unwrap(),
        "after close"
    );
}

#[test]
fn writer_frame_cap_seals() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "1-a");
    options.segment_frames = 10;
    let (spool, mut receiver) = Spool::open(options).unwrap();
    on_worker(async {
        let writer = spool.writer_seed(0).start();
        (0..25).for_each(|i| _ = append(&writer, &i.to_string()));
        writer.close().await;
    });
    assert_eq!(
        received(&mut receiver).iter().map(|s| s.frames).collect::<Vec<_>>(),
        [10, 10, 5]
    );
}

#[test]
fn writer_vanished_folder_heals_and_never_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("spool");
    let (spool, mut receiver) = Spool::open(options(&folder, "1-a")).unwrap();
    on_worker(async {
        let writer = spool.writer_seed(0).start();
        writer.flushed(append(&writer, "before")).await;
        // Moved, not removed: the preparing thread may be creating a file in it just now.
        fs::rename(&folder, dir.path().join("away")).unwrap();
        receiver.recv().await.unwrap().read().unwrap_err();
        writer.flushed(append(&writer, "after")).await;
        assert_eq!(payloads(&receiver.recv().await.unwrap()), ["after"]);

        // A file where the folder should be: nothing can be kept, and still nobody waits.
        for away in 0..1000 {
            fs::rename(&folder, dir.path().join(format!("away {away}"))).unwrap();
            // Fails if that thread has brought the folder back already.
            if fs::write(&folder, "").is_ok() {
                break;
            }
        }
        assert!(folder.is_file());
        writer.flushed(append(&writer, "lost")).await;
        assert_eq!(spool.stats().figures().lost, 1);
        fs::remove_file(&folder).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.flushed(append(&writer, "again")).await;
        assert_eq!(payloads(&receiver.recv().await.unwrap()), ["again"]);
    });
    assert_eq!(spool.stats().figures().lost, 1);
}

#[test]
fn spool_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(options(dir.path(), "1-a")).unwrap();
    let error = Spool::open(options(dir.path(), "2-a")).unwrap_err();
    assert!(
        matches!(&error, SpoolError::InUse { path } if path == dir.path()),
        "{error}"
    );
    drop(first);
    Spool::open(options(dir.path(), "2-a")).unwrap();
    assert!(matches!(
        Spool::open(options(dir.path(), "../x")).unwrap_err(),
        SpoolError::BootName(_)
    ));
}

#[test]
fn spool_older_boots_come_first_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for boot in ["1-a", "2-a", "3-a"] {
        let (spool, mut receiver) = Spool::open(options(dir.path(), boot)).unwrap();
        on_worker(async {
            let (even, odd) = (spool.writer_seed(0).start(), spool.writer_seed(1).start());
            for i in 0..4 {
                let writer = if i % 2 == 0 { &even } else { &odd };
                writer.flushed(append(writer, &format!("{boot} {i}"))).await;
                if i < 2 {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                }
            }
        });
        let order: Vec<_> = received(&mut receiver)
            .into_iter()
            .map(|s| (s.boot, s.sequence))
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(order.last().unwrap().0, boot);
    }
    let (spool, mut receiver) = Spool::open(options(dir.path(), "4-a")).unwrap();
    let sealed = received(&mut receiver);
    let wanted = ["1-a", "2-a", "3-a"]
        .into_iter()
        .flat_map(|b| (0..4).map(move |i| format!("{b} {i}")));
    assert_eq!(
        sealed.iter().flat_map(payloads).collect::<Vec<_>>(),
        wanted.collect::<Vec<_>>()
    );
    for segment in &sealed {
        spool.disposal().recycle(segment).unwrap();
    }
    assert_eq!(spool.stats().figures().unshipped_bytes, 0);
    assert!(!dir.path().join("1-a").exists(), "an empty boot folder goes");
}

#[test]
fn spool_unusable_files_do_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, receiver) = Spool::open(options(dir.path(), "1-a")).unwrap();
    on_worker(async {
        let writer = spool.writer_seed(0).start();
        writer.flushed(append(&writer, "kept")).await;
    });
    drop((spool, receiver));
    let boot = dir.path().join("1-a");
    let good = segment_files(&boot).remove(0);
    fs::write(boot.join("0-00000008.seg"), [0xAA; 9000]).unwrap();
    fs::write(boot.join("0-00000009.seg"), []).unwrap();
    // A spare whose present header did not reach the disk: the frames in it were shipped long ago.
    fs::create_dir(dir.path().join("1-b")).unwrap();
    fs::copy(&good, dir.path().join("1-b/0-00000001.seg")).unwrap();

    let (spool, mut receiver) = Spool::open(options(dir.path(), "2-a")).unwrap();
    let sealed = received(&mut receiver);
    assert_eq!(sealed.iter().flat_map(payloads).collect::<Vec<_>>(), ["kept"]);
    assert!(dir.path().join("dead/1-a-0-00000008.seg").exists());
    assert_eq!(spool.stats().figures().dead_segments, 1);
    assert_eq!(segment_files(&boot), std::slice::from_ref(&good));
    assert!(!dir.path().join("1-b").exists());
    sealed[0].trim().unwrap();
    assert_eq!(payloads(&sealed[0]), ["kept"]);
    let buried = spool.disposal().bury(&sealed[0]).unwrap();
    assert!(buried.exists() && !good.exists());
}
