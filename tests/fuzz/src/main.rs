//! Feeds the spool's recovery with what a disk may make of a segment. `tests/fuzz/run` builds and runs it.
//!
//! An input is taken twice: as a segment, and as damage done to a sound one. Whatever the bytes, recovery ends, returns
//! only frames whose CRC fits, in their order, and loses no more than what the damage touched.

#![no_main]

#[path = "../../../src/spool/format.rs"]
#[allow(dead_code)]
mod format;
#[path = "../../../src/spool/recover.rs"]
#[allow(dead_code)]
mod recover;

use format::{HEADER_LEN, Header, SEAL_AT, Salt, Seal, encode_header, encode_seal, push_frame, stamp};
use libfuzzer_sys::fuzz_target;
use recover::recover;

const SALT: Salt = Salt([7, 91, 13, 200, 5, 6, 7, 8]);

fuzz_target!(|input: &[u8]| {
    check(input);
    damaged(input);
});

/// What holds for any bytes.
fn check(bytes: &[u8]) {
    let Ok(found) = recover(bytes) else { return };
    let mut batch = Vec::new();
    for frame in &found.frames {
        push_frame(&mut batch, frame.kind, usize::MAX, |out| out.extend_from_slice(frame.payload))
            .expect("a frame that was read can be written");
    }
    assert!(batch.len() <= bytes.len(), "more than there is");
    assert_eq!(stamp(&mut batch, found.header.salt, usize::MAX, u32::MAX).0, batch.len());
    let again = [&encode_header(&found.header)[..], &batch].concat();
    let again = recover(&again).expect("a header that was read can be written");
    assert_eq!(again.frames, found.frames);
    assert!(!again.is_damaged());
}

/// A sound segment, of which the input says the frames and then the bytes that are overwritten.
fn damaged(input: &[u8]) {
    let Some(([frames, sealed], mut rest)) = input.split_first_chunk() else { return };
    let mut batch = Vec::new();
    let mut starts = Vec::new();
    for number in 0..frames % 16 {
        let len = take_first(&mut rest).unwrap_or(number);
        starts.push(HEADER_LEN + batch.len());
        push_frame(&mut batch, 1 + number, usize::MAX, |out| out.resize(out.len() + usize::from(len), number))
            .expect("a frame fits");
    }
    stamp(&mut batch, SALT, usize::MAX, u32::MAX);
    let header = Header {
        boot: "0001-a".to_owned(),
        worker: 3,
        sequence: 9,
        schema: 1,
        salt: SALT,
        created_at: 1_700_000_000_000_000,
    };
    let mut bytes = [&encode_header(&header)[..], &batch].concat();
    if sealed & 1 == 1 {
        let seal = Seal {
            frames: starts.len() as u32,
            payload_bytes: batch.len() as u64,
        };
        let seal = encode_seal(seal, SALT);
        bytes[SEAL_AT..SEAL_AT + seal.len()].copy_from_slice(&seal);
    }
    let sound = bytes.clone();
    // Each write: where, and the byte that is there then. The header's second copy is left alone.
    while let Some(([high, low, byte], more)) = rest.split_first_chunk() {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % bytes.len();
        if !(2048..HEADER_LEN).contains(&at) {
            bytes[at] = *byte;
        }
        rest = more;
    }
    let found = recover(&bytes).expect("one copy of the header is whole");
    let ends = starts.iter().skip(1).copied().chain([sound.len()]);
    let whole: Vec<u8> = starts
        .iter()
        .zip(ends)
        .enumerate()
        .filter(|(_, (start, end))| sound[**start..*end] == bytes[**start..*end])
        .map(|(number, _)| 1 + number as u8)
        .collect();
    let kinds: Vec<u8> = found.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, whole, "every whole frame and no other, in order");
    check(&bytes);
}

fn take_first(rest: &mut &[u8]) -> Option<u8> {
    let (first, more) = rest.split_first()?;
    *rest = more;
    Some(*first)
}
