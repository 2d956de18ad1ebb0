//! Tokens of the control plane. So far one administrator, from the environment or printed at the first start.

use serde_json::json;

use super::audit::{NewEntry, append};
use super::secret::{self, digest_hex};
use super::{Registry, RegistryError, now_us};

/// The name of the token given by the environment or made at the first start.
const BOOTSTRAP: &str = "bootstrap";

/// Who calls the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: String,
}

impl Registry {
    /// Makes sure that an administrator can sign in.
    ///
    /// A given token replaces the one named `bootstrap`. Without one, the first start makes one and returns it, to be
    /// printed once; later starts return nothing.
    ///
    /// # Errors
    /// When the given token is blank, or the database fails.
    pub async fn ensure_admin_token(&self, given: Option<&str>) -> Result<Option<String>, RegistryError> {
        if given.is_some_and(|token| token.trim().is_empty()) {
            return Err(RegistryError::InvalidField {
                field: "PROMPTGATE_ADMIN_TOKEN",
                message: "the admin token is blank, give one or leave the variable unset".to_owned(),
            });
        }
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let present: Option<(String, String)> =
            sqlx::query_as("SELECT name, digest FROM tokens ORDER BY CASE WHEN name = $1 THEN 0 ELSE 1 END LIMIT 1")
                .bind(BOOTSTRAP)
                .fetch_optional(&mut *tx)
                .await?;
        let (token, made) = match (given, &present) {
            (Some(given), Some((name, digest))) if name == BOOTSTRAP && *digest == digest_hex(given) => {
                return Ok(None);
            }
            (Some(given), _) => (given.to_owned(), None),
            (None, Some(_)) => return Ok(None),
            (None, None) => {
                let token = secret::generate("pga_")?;
                (token.clone(), Some(token))
            }
        };
        sqlx::query(
            "INSERT INTO tokens (id, name, digest, role, created_at) VALUES ($1, $2, $3, 'admin', $4) \
             ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, created_at = excluded.created_at",
        )
        .bind(secret::id("tok"))
        .bind(BOOTSTRAP)
        .bind(digest_hex(&token))
        .bind(now_us())
        .execute(&mut *tx)
        .await?;
        let entry = NewEntry {
            at_us: now_us(),
            actor: "promptgate",
            action: "token.set",
            subject: BOOTSTRAP,
            detail: json!({"role": "admin", "generated": made.is_some()}),
        };
        append(&mut tx, entry).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Returns whose token this is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate_token(&self, token: &str) -> Result<Option<Token>, RegistryError> {
        let row: Option<(String, String, String)> =
            sqlx::query_as("SELECT id, name, role FROM tokens WHERE digest = $1")
                .bind(digest_hex(token))
                .fetch_optional(&self.reader)
                .await?;
        Ok(row.map(|(id, name, role)| Token { id, name, role }))
    }
}
