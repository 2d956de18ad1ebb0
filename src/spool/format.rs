//! The bytes of a segment: header, seal and frames. Pure: no files, no clock, no randomness.
//!
//! ```text
//! segment (all integers little endian)
//!      0   84  identity (below)
//!    512   28  seal (below), zeros while the segment is open
//!   2048   84  identity again: a flipped bit in one copy costs nothing
//!   4096    …  frames, back to back, then stale or zero bytes up to the preallocated end
//!
//! identity                                      seal
//!   0   8  magic "pgspool\n"                      0   4  "SEAL"
//!   8   2  format version (1)                     4   4  frames
//!  10   2  zero                                   8   8  payload length in bytes
//!  12   4  schema id of the payloads             16   8  zero
//!  16   8  salt, random for each use             24   4  CRC-32 of 0..24, seeded with the salt
//!  24   4  worker
//!  28   4  zero                                 frame
//!  32   8  sequence                               0   4  length of the payload
//!  40   8  created at, µs since the epoch         4   4  CRC-32 of 8.., seeded with the salt
//!  48  32  boot name, zero padded                 8   1  kind, never 0
//!  80   4  CRC-32 of 0..80                        9   3  mark: the first 3 bytes of the salt
//!                                                12   …  payload
//! ```
//!
//! The salt makes the stale bytes of a recycled file fail. The mark is there for the scan past damage: it finds the
//! next frame in one linear pass and, being unknown to callers, cannot be planted in a body to make the scan slow.

use crc32fast::Hasher;

/// Bytes before the first frame; a page, so that frames start on a page boundary.
pub const HEADER_LEN: usize = 4096;
/// Bytes of a frame before its payload.
pub const FRAME_HEAD_LEN: usize = 12;
/// Bytes of the seal, which is written alone when a segment is closed.
pub const SEAL_LEN: usize = 28;
/// Where the seal is.
pub const SEAL_AT: usize = 512;
/// Longest boot name the header can hold.
pub const BOOT_LEN_MAX: usize = 32;

const MAGIC: [u8; 8] = *b"pgspool\n";
const SEAL_MAGIC: [u8; 4] = *b"SEAL";
const VERSION: u16 = 1;
const IDENTITY_LEN: usize = 84;
const IDENTITY_AT: [usize; 2] = [0, 2048];
const MARK_AT: usize = 9;

/// Random bytes that tie the frames of a segment to this use of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 8]);

impl Salt {
    /// The bytes every frame of the segment carries.
    pub fn mark(self) -> [u8; 3] {
        [self.0[0], self.0[1], self.0[2]]
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(crc32fast::hash(&self.0));
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Who wrote a segment, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name of the process's run; the folder the segment is in.
    pub boot: String,
    pub worker: u32,
    /// Unique within the boot, growing.
    pub sequence: u64,
    /// What the payloads mean; the spool itself does not look inside.
    pub schema: u32,
    pub salt: Salt,
    /// Microseconds since the Unix epoch; that of the first frame, since segments are opened for one.
    pub created_at: i64,
}

/// What is known of a segment once nothing is added to it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    pub frames: u32,
    /// Bytes of frames after the header.
    pub payload_bytes: u64,
}

/// One whole frame, borrowed from the segment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

/// Why the header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("segment has no header: it was never used, or is being recycled")]
    Blank,
    #[error("segment header is damaged in both copies")]
    Damaged,
    #[error("segment has format version {0}, this build reads version {VERSION}")]
    Version(u16),
}

/// Encodes the header of an open segment; the seal is zeros.
pub fn encode_header(header: &Header) -> [u8; HEADER_LEN] {
    let mut identity = [0u8; IDENTITY_LEN];
    identity[..8].copy_from_slice(&MAGIC);
    identity[8..10].copy_from_slice(&VERSION.to_le_bytes());
    identity[12..16].copy_from_slice(&header.schema.to_le_bytes());
    identity[16..24].copy_from_slice(&header.salt.0);
    identity[24..28].copy_from_slice(&header.worker.to_le_bytes());
    identity[32..40].copy_from_slice(&header.sequence.to_le_bytes());
    identity[40..48].copy_from_slice(&header.created_at.to_le_bytes());
    let boot = &header.boot.as_bytes()[..header.boot.len().min(BOOT_LEN_MAX)];
    identity[48..48 + boot.len()].copy_from_slice(boot);
    let crc = crc32fast::hash(&identity[..80]);
    identity[80..].copy_from_slice(&crc.to_le_bytes());

    let mut page = [0u8; HEADER_LEN];
    for at in IDENTITY_AT {
        page[at..at + IDENTITY_LEN].copy_from_slice(&identity);
    }
    page
}

/// Encodes a seal, to be written at [`SEAL_AT`].
pub fn encode_seal(seal: Seal, salt: Salt) -> [u8; SEAL_LEN] {
    let mut bytes = [0u8; SEAL_LEN];
    bytes[..4].copy_from_slice(&SEAL_MAGIC);
    bytes[4..8].copy_from_slice(&seal.frames.to_le_bytes());
    bytes[8..16].copy_from_slice(&seal.payload_bytes.to_le_bytes());
    let crc = salt.crc(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the header from either copy, and the seal if there is a whole one.
///
/// # Errors
/// The file was never used, both copies are damaged, or another format version wrote it.
pub fn decode_header(bytes: &[u8]) -> Result<(Header, Option<Seal>), HeaderError> {
    let mut blank = true;
    for at in IDENTITY_AT {
        let Some(identity) = bytes.get(at..at + IDENTITY_LEN) else {
            continue;
        };
        blank &= identity.iter().all(|b| *b == 0);
        if identity[..8] != MAGIC || u32_at(identity, 80) != crc32fast::hash(&identity[..80]) {
            continue;
        }
        let version = u16::from_le_bytes(array(identity, 8));
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let boot = identity[48..80].split(|b| *b == 0).next().unwrap_or_default();
        let header = Header {
            boot: String::from_utf8_lossy(boot).into_owned(),
            worker: u32_at(identity, 24),
            sequence: u64::from_le_bytes(array(identity, 32)),
            schema: u32_at(identity, 12),
            salt: Salt(array(identity, 16)),
            created_at: i64::from_le_bytes(array(identity, 40)),
        };
        let seal = decode_seal(bytes, header.salt);
        return Ok((header, seal));
    }
    Err(if blank {
        HeaderError::Blank
    } else {
        HeaderError::Damaged
    })
}

fn decode_seal(bytes: &[u8], salt: Salt) -> Option<Seal> {
    let seal = bytes.get(SEAL_AT..SEAL_AT + SEAL_LEN)?;
    if seal[..4] != SEAL_MAGIC || u32_at(seal, 24) != salt.crc(&seal[..24]) {
        return None;
    }
    Some(Seal {
        frames: u32_at(seal, 4),
        payload_bytes: u64::from_le_bytes(array(seal, 8)),
    })
}

/// Appends a frame without CRC and mark: both depend on the segment it goes to, known only when it is written.
/// Returns the frame's length; nothing of it is left if it is longer than `max`.
///
/// # Errors
/// The frame is longer than `max` bytes: its length.
pub fn push_frame(
    buffer: &mut Vec<u8>,
    kind: u8,
    max: usize,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<usize, usize> {
    debug_assert_ne!(kind, 0, "kind 0 is what unused bytes look like");
    let start = buffer.len();
    buffer.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, kind, 0, 0, 0]);
    encode(buffer);
    let len = buffer.len().saturating_sub(start);
    let payload = len.saturating_sub(FRAME_HEAD_LEN);
    let (true, Ok(payload)) = (len <= max, u32::try_from(payload)) else {
        buffer.truncate(start);
        return Err(len);
    };
    buffer[start..start + 4].copy_from_slice(&payload.to_le_bytes());
    Ok(len)
}

/// Stamps CRC and mark on as many leading frames of `batch` as fit in `space` bytes and `frames` frames.
/// Returns how many bytes and frames those are.
pub fn stamp(batch: &mut [u8], salt: Salt, space: usize, frames: u32) -> (usize, u32) {
    let (mut at, mut stamped) = (0, 0);
    while stamped < frames && at + FRAME_HEAD_LEN <= batch.len() {
        let end = at + FRAME_HEAD_LEN + u32_at(batch, at) as usize;
        if end > space || end > batch.len() {
            break;
        }
        batch[at + MARK_AT..at + FRAME_HEAD_LEN].copy_from_slice(&salt.mark());
        let crc = salt.crc(&batch[at + 8..end]);
        batch[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        (at, stamped) = (end, stamped + 1);
    }
    (at, stamped)
}

/// Counts the frames of a batch that was built by [`push_frame`].
pub fn count_frames(batch: &[u8]) -> u64 {
    let (mut at, mut count) = (0, 0);
    while at + FRAME_HEAD_LEN <= batch.len() {
        at += FRAME_HEAD_LEN + u32_at(batch, at) as usize;
        count += 1;
    }
    count
}

/// Reads the frame that starts at `at`, if a whole and intact one does; also returns where it ends.
pub fn read_frame(bytes: &[u8], at: usize, salt: Salt) -> Option<(Frame<'_>, usize)> {
    let head = bytes.get(at..at + FRAME_HEAD_LEN)?;
    let kind = head[8];
    if kind == 0 || head[MARK_AT..] != salt.mark() {
        return None;
    }
    let end = (at + FRAME_HEAD_LEN).checked_add(u32_at(head, 0) as usize)?;
    let checked = bytes.get(at + 8..end)?;
    if salt.crc(checked) != u32_at(head, 4) {
        return None;
    }
    Some((
        Frame {
            kind,
            payload: &checked[FRAME_HEAD_LEN - 8..],
        },
        end,
    ))
}

/// Finds the next whole frame at or after `from`, however much damage is before it; returns where it starts.
pub fn find_frame(bytes: &[u8], from: usize, salt: Salt) -> Option<usize> {
    let marks = memchr::memmem::Finder::new(&salt.mark()).into_owned();
    let first = from + MARK_AT;
    marks
        .find_iter(bytes.get(first..)?)
        .map(|hit| from + hit)
        .find(|at| read_frame(bytes, *at, salt).is_some())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}
