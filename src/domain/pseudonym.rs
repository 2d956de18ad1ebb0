//! Names for people that tell them apart and do not say who they are.

use sha2::{Digest, Sha256};

/// Returns 32 hexadecimal digits for an id of a person, empty for an empty one.
///
/// The same for the same key; without the key, which nobody is shown, an id cannot be tried out.
pub fn pseudonym(key: &str, id: &str) -> String {
    if id.is_empty() {
        return String::new();
    }
    let digest = Sha256::new()
        .chain_update(key.as_bytes())
        .chain_update([0])
        .chain_update(id.as_bytes())
        .finalize();
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = digest[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(HEX[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records and erasures are found by it: it must not change.
    #[test]
    fn pseudonym_stays_what_it_was() {
        assert_eq!(
            pseudonym("epoch_1", "ada@example.com"),
            "8bbd5048247974ae4d88a409929ed62e"
        );
        assert_ne!(pseudonym("epoch_1", "ada"), pseudonym("epoch_2", "ada"));
        assert_eq!(pseudonym("epoch_1", ""), "");
    }
}
