//! Reading a segment back, whatever happened to it. Pure: works on the segment's bytes.
//!
//! Keeps every whole frame. A torn tail (the process died in the middle of a write) ends the segment; a damaged frame
//! in the middle (a flipped bit) costs that frame alone, since the scan goes on behind it. Never returns bytes whose
//! CRC does not fit, and so never the frames of a recycled file's earlier use.

use super::format::{Frame, HEADER_LEN, Header, HeaderError, Seal, decode_header, find_frame, read_frame};

/// What a segment holds.
#[derive(Debug)]
pub struct Recovered<'a> {
    pub header: Header,
    /// None if the segment was still open, or its seal is damaged.
    pub seal: Option<Seal>,
    /// Every whole frame, in the order written.
    pub frames: Vec<Frame<'a>>,
    /// Bytes after the header up to the end of the last whole frame.
    pub payload_bytes: usize,
    /// Whole frames found behind the first damage; not 0 means a frame was lost to it.
    pub damaged_after: usize,
}

impl Recovered<'_> {
    /// Whether frames are known to be missing: damage in the middle, or fewer frames than were sealed.
    pub fn is_damaged(&self) -> bool {
        self.damaged_after > 0 || self.missing() > 0
    }

    /// Frames that were sealed but are not there.
    pub fn missing(&self) -> u64 {
        self.seal.map_or(0, |seal| {
            u64::from(seal.frames).saturating_sub(self.frames.len() as u64)
        })
    }

    /// The seal that describes what was found.
    pub fn found(&self) -> Seal {
        Seal {
            frames: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
            payload_bytes: self.payload_bytes as u64,
        }
    }
}

/// Reads a segment from its bytes, header included. A sealed one is read up to its seal's length.
///
/// # Errors
/// The header cannot be used; nothing can be told about the frames then.
pub fn recover(bytes: &[u8]) -> Result<Recovered<'_>, HeaderError> {
    let (header, seal) = decode_header(bytes)?;
    let sealed_end = seal
        .and_then(|s| usize::try_from(s.payload_bytes).ok())
        .map(|len| HEADER_LEN.saturating_add(len));
    let bytes = &bytes[..sealed_end.unwrap_or(bytes.len()).min(bytes.len())];

    let mut frames = Vec::new();
    let mut damaged_after = 0;
    let mut damaged = false;
    let mut at = HEADER_LEN;
    let mut end = HEADER_LEN;
    loop {
        if let Some((frame, next)) = read_frame(bytes, at, header.salt) {
            frames.push(frame);
            damaged_after += usize::from(damaged);
            (at, end) = (next, next);
            continue;
        }
        match find_frame(bytes, at, header.salt) {
            Some(next) => (at, damaged) = (next, true),
            None => break,
        }
    }
    Ok(Recovered {
        header,
        seal,
        frames,
        payload_bytes: end - HEADER_LEN,
        damaged_after,
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::spool::format::{FRAME_HEAD_LEN, SEAL_AT, Salt, encode_header, encode_seal, push_frame, stamp};

    const SALT: Salt = Salt([7, 91, 13, 200, 5, 6, 7, 8]);

    fn header(salt: Salt) -> Header {
        Header {
            boot: "0001-a".into(),
            worker: 3,
            sequence: 9,
            schema: 1,
            salt,
            created_at: 1_700_000_000_000_000,
        }
    }

    fn segment(payloads: &[Vec<u8>], salt: Salt) -> Vec<u8> {
        let mut batch = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            push_frame(&mut batch, 1 + (i % 2) as u8, usize::MAX, |b| {
                b.extend_from_slice(payload)
            })
            .unwrap();
        }
        assert_eq!(
            stamp(&mut batch, salt, usize::MAX, u32::MAX),
            (batch.len(), payloads.len() as u32)
        );
        [&encode_header(&header(salt))[..], &batch].concat()
    }

    fn seal(bytes: &mut [u8], frames: usize, salt: Salt) {
        let seal = Seal {
            frames: frames as u32,
            payload_bytes: (bytes.len() - HEADER_LEN) as u64,
        };
        let encoded = encode_seal(seal, salt);
        bytes[SEAL_AT..SEAL_AT + encoded.len()].copy_from_slice(&encoded);
    }

    fn payloads_of(recovered: &Recovered<'_>) -> Vec<Vec<u8>> {
        recovered.frames.iter().map(|f| f.payload.to_vec()).collect()
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..200), 0..20)
    }

    /// `wanted` with at most one element left out.
    fn lost_at_most_one(wanted: &[Vec<u8>], got: &[Vec<u8>]) -> bool {
        let same = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
        got == wanted || (got.len() + 1 == wanted.len() && wanted[same + 1..] == got[same..])
    }

    #[test]
    fn recover_empty_segment_has_no_frames() {
        let bytes = segment(&[], SALT);
        let recovered = recover(&bytes).unwrap();
        assert!(recovered.frames.is_empty() && !recovered.is_damaged());
        assert_eq!(recovered.header, header(SALT));
        assert_eq!(recover(&vec![0; 9000]).unwrap_err(), HeaderError::Blank);
        assert_eq!(recover(b"short").unwrap_err(), HeaderError::Blank);
    }

    #[test]
    fn recover_stops_at_the_sealed_length() {
        let mut bytes = segment(&[b"one".to_vec()], SALT);
        seal(&mut bytes, 1, SALT);
        let more = segment(&[b"two".to_vec()], SALT);
        bytes.extend_from_slice(&more[HEADER_LEN..]);
        assert_eq!(payloads_of(&recover(&bytes).unwrap()), [b"one".to_vec()]);
    }

    #[test]
    fn stamp_takes_only_what_fits() {
        let mut batch = Vec::new();
        for _ in 0..3 {
            push_frame(&mut batch, 1, 100, |b| b.extend_from_slice(&[9; 10])).unwrap();
        }
        let frame = FRAME_HEAD_LEN + 10;
        assert_eq!(stamp(&mut batch, SALT, 2 * frame + 1, 10), (2 * frame, 2));
        assert_eq!(stamp(&mut batch, SALT, usize::MAX, 1), (frame, 1));
        assert_eq!(stamp(&mut batch, SALT, frame - 1, 10), (0, 0));
        assert_eq!(
            push_frame(&mut batch, 1, 20, |b| b.extend_from_slice(&[9; 10])),
            Err(frame)
        );
        assert_eq!(batch.len(), 3 * frame, "nothing of a refused frame is left");
    }

    proptest! {
        #[test]
        fn recover_returns_what_was_written(payloads in payloads(), sealed: bool, zeros in 0usize..300) {
            let mut bytes = segment(&payloads, SALT);
            if sealed {
                seal(&mut bytes, payloads.len(), SALT);
            }
            let payload_bytes = bytes.len() - HEADER_LEN;
            bytes.resize(bytes.len() + zeros, 0);
            let recovered = recover(&bytes).unwrap();
            prop_assert_eq!(recovered.payload_bytes, payload_bytes);
            prop_assert_eq!(recovered.seal.is_some(), sealed);
            prop_assert!(!recovered.is_damaged());
            prop_assert_eq!(payloads_of(&recovered), payloads);
        }

        #[test]
        fn recover_torn_tail_keeps_whole_frames(payloads in payloads(), cut: prop::sample::Index, zeros in 0usize..300) {
            let mut bytes = segment(&payloads, SALT);
            let cut = HEADER_LEN + cut.index(bytes.len() - HEADER_LEN + 1);
            bytes.truncate(cut);
            let mut whole = 0;
            let mut end = HEADER_LEN;
            while whole < payloads.len() && end + FRAME_HEAD_LEN + payloads[whole].len() <= cut {
                end += FRAME_HEAD_LEN + payloads[whole].len();
                whole += 1;
            }
            bytes.resize(bytes.len() + zeros, 0xEE);
            let recovered = recover(&bytes).unwrap();
            prop_assert_eq!(recovered.payload_bytes, end - HEADER_LEN);
            prop_assert!(!recovered.is_damaged(), "a torn tail is not damage");
            prop_assert_eq!(payloads_of(&recovered), &payloads[..whole]);
        }

        #[test]
        fn recover_bit_flip_anywhere_loses_at_most_the_frame_hit(
            payloads in payloads(), sealed: bool, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut bytes = segment(&payloads, SALT);
            if sealed {
                seal(&mut bytes, payloads.len(), SALT);
            }
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let recovered = recover(&bytes).unwrap();
            let got = payloads_of(&recovered);
            if at < HEADER_LEN {
                prop_assert_eq!(&got, &payloads);
            } else {
                prop_assert!(got.len() + 1 == payloads.len());
                prop_assert!(lost_at_most_one(&payloads, &got));
                prop_assert!(recovered.is_damaged() || !sealed);
            }
        }

        #[test]
        fn recover_stale_bytes_of_a_recycled_file_never_read_as_frames(
            old in payloads(), new in payloads(), salt: [u8; 8],
        ) {
            prop_assume!(salt != SALT.0);
            let stale = segment(&old, SALT);
            let fresh = segment(&new, Salt(salt));
            let mut bytes = fresh.clone();
            bytes.extend_from_slice(stale.get(fresh.len()..).unwrap_or_default());
            // Stale frames also where a frame may start: directly behind the fresh ones.
            bytes.extend_from_slice(&stale[HEADER_LEN..]);
            prop_assert_eq!(payloads_of(&recover(&bytes).unwrap()), new);
        }

        #[test]
        fn recover_any_bytes_never_panics(mut bytes in vec(any::<u8>(), 0..600), keep_header: bool) {
            if keep_header {
                let mut with_header = encode_header(&header(SALT)).to_vec();
                with_header.append(&mut bytes);
                bytes = with_header;
            }
            let _ = recover(&bytes);
        }
    }
}
