//! A sample spread evenly over texts, as if they were one.

/// Length of a stretch: long enough that the words cut at its ends matter little.
const STRETCH_BYTES: usize = 1 << 10;

/// Returns stretches of altogether about `sample` bytes of `texts`, which have `total` bytes, more than `sample`.
///
/// Each is within one text, and is cut at characters.
pub fn stretches<T: AsRef<str>>(texts: &[T], total: usize, sample: usize) -> impl Iterator<Item = &str> {
    let period = (total / (sample / STRETCH_BYTES).max(1)).max(STRETCH_BYTES);
    let starts = texts.iter().scan(0, |at, text| {
        let start = *at;
        *at += text.as_ref().len();
        Some((start, text.as_ref()))
    });
    starts.flat_map(move |(start, text)| {
        let end = start + text.len();
        (start / period..=end / period).filter_map(move |n| {
            let from = (n * period).clamp(start, end) - start;
            let to = (n * period + STRETCH_BYTES).clamp(start, end) - start;
            let (from, to) = (text.ceil_char_boundary(from), text.floor_char_boundary(to));
            text.get(from..to).filter(|stretch| !stretch.is_empty())
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stretches_are_spread_over_all_texts() {
        let texts = ["a".repeat(30_000), "b".repeat(30_000), String::new(), "c".repeat(3_000)];
        let found: Vec<&str> = stretches(&texts, 63_000, 8 << 10).collect();
        let bytes: usize = found.iter().map(|stretch| stretch.len()).sum();
        assert!((7 << 10..=9 << 10).contains(&bytes), "{bytes}");
        let of = |letter| found.iter().filter(|stretch| stretch.starts_with(letter)).count();
        assert_eq!((of('a'), of('b')), (4, 4));
    }

    proptest! {
        #[test]
        fn stretches_are_parts_of_the_texts_in_order(texts in prop::collection::vec("[aé日😀]{0,2000}", 1..6), sample in 1_usize..8_000) {
            let total: usize = texts.iter().map(String::len).sum();
            let mut rest = texts.iter().map(String::as_str).collect::<Vec<_>>();
            for stretch in stretches(&texts, total, sample) {
                let inside = |text: &&str| {
                    let range = text.as_bytes().as_ptr_range();
                    range.contains(&stretch.as_ptr())
                };
                let at = rest.iter().position(inside).expect("a part of a text that is not over");
                rest.drain(..at);
                let offset = stretch.as_ptr() as usize - rest[0].as_ptr() as usize;
                rest[0] = &rest[0][offset + stretch.len()..];
            }
        }
    }
}
