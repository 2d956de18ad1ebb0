//! The spool against a model: whatever is appended, written, sealed and shipped, and wherever the process dies, every
//! record that was written is offered again until it is shipped, once, and as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::format::{FRAME_HEAD_LEN, HEADER_LEN};
use super::*;

/// Bytes of a segment: small, so that they are full now and then.
const SEGMENT_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone)]
enum Step {
    /// A record of so many bytes.
    Append(usize),
    /// A record that takes long: noted, not finished.
    Open(usize),
    /// One of the open ones is finished.
    Finish(Index),
    /// The event loop ticks: what is appended is written.
    Tick,
    /// Time passes: segments are sealed.
    Wait,
    /// The sink takes the oldest segment.
    Ship,
}

#[derive(Debug, Clone)]
enum End {
    /// `kill -9`.
    Killed,
    /// The machine dies in the middle of the last write.
    Torn(Index),
    /// A bit of a segment flips.
    Flipped(Index, Index, u8),
    Closed,
}

#[derive(Debug, Clone)]
struct Boot {
    steps: Vec<Step>,
    end: End,
}

fn boot() -> impl Strategy<Value = Boot> {
    let step = prop_oneof![
        6 => (0usize..9000).prop_map(Step::Append),
        2 => (0usize..3000).prop_map(Step::Open),
        2 => any::<Index>().prop_map(Step::Finish),
        4 => Just(Step::Tick),
        1 => Just(Step::Wait),
        2 => Just(Step::Ship),
    ];
    let end = prop_oneof![
        2 => Just(End::Killed),
        2 => any::<Index>().prop_map(End::Torn),
        2 => (any::<Index>(), any::<Index>(), 0u8..8).prop_map(|(file, at, bit)| End::Flipped(file, at, bit)),
        1 => Just(End::Closed),
    ];
    (vec(step, 0..40), end).prop_map(|(steps, end)| Boot { steps, end })
}

/// What is known of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not written: a crash loses it.
    Appended,
    /// Noted as open in this tick, or in an earlier one.
    Opening,
    Open,
    /// Finished in this tick; a crash leaves it open.
    Finishing,
    Written,
    /// In the last write, which was torn, or in a segment that was damaged.
    Doubtful,
    Shipped,
}

#[derive(Debug, Default)]
struct Model {
    fates: BTreeMap<u32, Fate>,
    lengths: BTreeMap<u32, usize>,
    /// Records of the last tick that wrote any.
    last: Vec<u32>,
    /// Records that a damaged segment may lose.
    flips: usize,
    shipped: BTreeSet<u32>,
}

fn payload(id: u32, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; KEY_LEN];
    payload[..4].copy_from_slice(&id.to_le_bytes());
    payload.resize(KEY_LEN + bytes, id as u8);
    payload
}

impl Model {
    fn next(&mut self, bytes: usize, fate: Fate) -> u32 {
        let id = self.fates.len() as u32;
        self.fates.insert(id, fate);
        self.lengths.insert(id, bytes);
        id
    }

    fn with(&self, fates: &[Fate]) -> Vec<u32> {
        let found = self.fates.iter().filter(|(_, fate)| fates.contains(fate));
        found.map(|(id, _)| *id).collect()
    }

    fn tick(&mut self) {
        let written = self.with(&[Fate::Appended, Fate::Finishing]);
        for id in &written {
            self.fates.insert(*id, Fate::Written);
        }
        for id in self.with(&[Fate::Opening]) {
            self.fates.insert(id, Fate::Open);
        }
        if !written.is_empty() {
            self.last = written;
        }
    }

    /// The process is gone; what was open will be offered as it is.
    fn die(&mut self) {
        self.fates
            .retain(|_, fate| !matches!(fate, Fate::Appended | Fate::Opening));
        for id in self.with(&[Fate::Open, Fate::Finishing]) {
            self.fates.insert(id, Fate::Written);
        }
    }

    fn ship(&mut self, ids: &[u32]) {
        for id in ids {
            assert!(self.shipped.insert(*id), "{id} is offered twice");
            assert!(self.fates.contains_key(id), "{id} was never written");
            self.fates.insert(*id, Fate::Shipped);
        }
    }
}

/// The ids in a segment; every payload is as it was written.
fn ids(sealed: &Sealed, model: &Model) -> Vec<u32> {
    let bytes = sealed.read().unwrap();
    let recovered = recover(&bytes).unwrap();
    let read = |payload_read: &[u8]| {
        let id = u32::from_le_bytes(*payload_read.first_chunk().unwrap());
        assert_eq!(payload_read, payload(id, model.lengths[&id]), "{id} has changed");
        id
    };
    recovered.frames.iter().map(|frame| read(frame.payload)).collect()
}

fn run(boots: Vec<Boot>) {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for (number, boot) in boots.into_iter().enumerate() {
        let (spool, mut receiver) = open(dir.path(), number);
        let mut queue = Vec::new();
        on_worker(async {
            let writer = spool.writer_seed(0).start();
            model.last.clear();
            let mut open = Vec::new();
            for step in boot.steps {
                match step {
                    Step::Append(bytes) => {
                        let id = model.next(bytes, Fate::Appended);
                        writer.append(KIND, |out| out.extend(payload(id, bytes))).unwrap();
                    }
                    Step::Open(bytes) => {
                        let id = model.next(bytes, Fate::Opening);
                        writer.opened(KIND, |out| out.extend(payload(id, bytes)));
                        open.push(id);
                    }
                    Step::Finish(index) if !open.is_empty() => {
                        let id = open.swap_remove(index.index(open.len()));
                        let fate = if model.fates[&id] == Fate::Open {
                            Fate::Finishing
                        } else {
                            Fate::Appended
                        };
                        let bytes = payload(id, model.lengths[&id]);
                        writer.append(KIND, |out| out.extend_from_slice(&bytes)).unwrap();
                        writer.closed(*bytes.first_chunk().unwrap());
                        model.fates.insert(id, fate);
                    }
                    Step::Finish(_) => {}
                    Step::Tick => {
                        tokio::task::yield_now().await;
                        model.tick();
                    }
                    Step::Wait => {
                        tokio::time::sleep(Duration::from_millis(1100)).await;
                        model.tick();
                        model.last.clear();
                    }
                    Step::Ship => {
                        queue.extend(received(&mut receiver));
                        if !queue.is_empty() {
                            let sealed = queue.remove(0);
                            model.ship(&ids(&sealed, &model));
                            spool.disposal().recycle(&sealed).unwrap();
                        }
                    }
                }
            }
            if matches!(boot.end, End::Closed) {
                writer.close().await;
                model.tick();
            }
        });
        drop((spool, receiver));
        model.die();
        let folder = dir.path().join(boot_folder(number));
        match boot.end {
            End::Torn(index) => tear(&folder, index, &mut model),
            End::Flipped(file, at, bit) => flip(dir.path(), (file, at, bit), &mut model),
            End::Killed | End::Closed => {}
        }
        // Whoever dies while recovering has done nothing that cannot be done again.
        drop(open(dir.path(), 1000 + number));
    }
    let (spool, mut receiver) = open(dir.path(), 9999);
    for sealed in received(&mut receiver) {
        model.ship(&ids(&sealed, &model));
        spool.disposal().recycle(&sealed).unwrap();
    }
    assert_eq!(model.with(&[Fate::Written]), [0u32; 0], "lost");
    let doubtful = model.with(&[Fate::Doubtful]).len();
    assert!(
        doubtful <= model.flips,
        "{doubtful} are lost to {} flipped bits",
        model.flips
    );
}

fn boot_folder(number: usize) -> String {
    format!("{number:04}-a")
}

fn open(folder: &Path, number: usize) -> (Spool, UnboundedReceiver<Sealed>) {
    let mut options = SpoolOptions::new(folder.to_path_buf(), boot_folder(number), 7, 1, Duration::from_secs(1));
    options.segment_bytes = SEGMENT_BYTES;
    Spool::open(options).unwrap()
}

/// Overwrites the end of the last write of the segment that is still open.
fn tear(folder: &Path, index: Index, model: &mut Model) {
    let open = segment_files(folder).into_iter().find(|path| {
        let bytes = fs::read(path).unwrap();
        path.extension().is_some_and(|ending| ending == "seg")
            && recover(&bytes).is_ok_and(|found| found.seal.is_none())
    });
    let Some(path) = open else { return };
    let bytes = fs::read(&path).unwrap();
    let found = recover(&bytes).unwrap();
    let own: BTreeSet<u32> = found
        .frames
        .iter()
        .map(|frame| u32::from_le_bytes(*frame.payload.first_chunk().unwrap()))
        .collect();
    let torn: Vec<u32> = model.last.iter().filter(|id| own.contains(id)).copied().collect();
    let len: usize = torn.iter().map(|id| FRAME_HEAD_LEN + KEY_LEN + model.lengths[id]).sum();
    if len == 0 {
        return;
    }
    let end = HEADER_LEN + found.payload_bytes;
    let cut = end - len + index.index(len);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xEE; end - cut], cut as u64).unwrap();
    for id in torn {
        model.fates.insert(id, Fate::Doubtful);
    }
    model.flips += model.last.len();
}

fn flip(folder: &Path, (file, at, bit): (Index, Index, u8), model: &mut Model) {
    let boots = segment_files(folder).into_iter().filter(|path| path.is_dir());
    let mut files: Vec<PathBuf> = boots
        .flat_map(|boot| segment_files(&boot))
        .filter(|path| {
            path.extension().is_some_and(|ending| ending == "seg") && !path.to_string_lossy().contains("pool")
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return;
    }
    let path = &files[file.index(files.len())];
    let mut bytes = fs::read(path).unwrap();
    let Ok(found) = recover(&bytes) else { return };
    let own: Vec<u32> = found
        .frames
        .iter()
        .map(|frame| u32::from_le_bytes(*frame.payload.first_chunk().unwrap()))
        .collect();
    let at = at.index(HEADER_LEN + found.payload_bytes);
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    for id in own {
        if model.fates.get(&id) == Some(&Fate::Written) {
            model.fates.insert(id, Fate::Doubtful);
        }
    }
    model.flips += 1;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_written_record_is_offered_until_it_is_shipped(boots in vec(boot(), 1..5)) {
        run(boots);
    }
}
