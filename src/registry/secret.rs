//! Random secrets and ids. A secret is shown once and stored as its SHA-256 only.
//!
//! A plain hash is enough here: secrets have 256 random bits, so there is no dictionary to try, and looking one up by its
//! digest reveals nothing through timing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use super::RegistryError;

/// Returns `prefix` and 43 characters of base64url: 32 bytes from the operating system.
pub(super) fn generate(prefix: &str) -> Result<String, RegistryError> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random()?)))
}

/// Returns 32 bytes from the operating system.
pub(super) fn random() -> Result<[u8; 32], RegistryError> {
    let mut bytes = [0u8; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|why| sqlx::Error::Io(std::io::Error::other(why.to_string())))?;
    Ok(bytes)
}

/// Returns `<prefix>_` and an identifier that sorts by time.
pub(super) fn id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

/// Returns the SHA-256 of a secret in lowercase hexadecimal.
pub(super) fn digest_hex(secret: &str) -> String {
    format!("{:x}", Sha256::digest(secret.as_bytes()))
}

/// Reads a digest back from its hexadecimal form.
pub(super) fn digest_bytes(hex: &str) -> Result<[u8; 32], RegistryError> {
    let malformed = || RegistryError::Stored("a digest is not 64 hexadecimal digits".to_owned());
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(malformed());
    }
    let mut digest = [0u8; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| malformed())?;
    }
    Ok(digest)
}

/// A digest as hexadecimal digits where it is serialised.
pub(super) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::domain::audit::hex(digest))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        super::digest_bytes(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_has_43_characters_and_never_repeats() {
        let secret = generate("pg_").unwrap();
        assert_eq!(secret.len(), 46);
        assert_ne!(secret, generate("pg_").unwrap());
    }

    #[test]
    fn digest_survives_its_hexadecimal_form() {
        let expected: [u8; 32] = Sha256::digest(b"pg_x").into();
        assert_eq!(digest_bytes(&digest_hex("pg_x")).unwrap(), expected);
        assert!(digest_bytes("zz").is_err());
    }
}
