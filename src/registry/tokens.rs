//! Tokens of the control plane. Each belongs to a user and may do what the user may; it is shown once, and only its
//! SHA-256 is stored.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::audit::{NewEntry, append};
use super::change::{Actor, Change};
use super::secret::{self, digest_hex};
use super::users::{self, ADMIN, ADMIN_ID};
use super::{Missing, Published, Registry, RegistryError, now_us};
use crate::domain::role::Grant;

/// The name of the token given by the environment or made at the first start.
const BOOTSTRAP: &str = "bootstrap";

/// How old `last_used_at` (µs) may be before it is written again: a write a request would be too much.
const LAST_USED_STEP_US: i64 = 60_000_000;

const MAX_NAME_BYTES: usize = 100;

/// The most tokens of one user that were not revoked.
const MAX_TOKENS: usize = 100;

/// Who calls the control plane, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user_id: String,
    /// The user's name.
    pub user: String,
    pub token_id: String,
    /// The token's name.
    pub token: String,
    /// Microseconds since the Unix epoch.
    pub expires_at_us: Option<i64>,
    last_used_at_us: Option<i64>,
    pub grants: Vec<Grant>,
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// Microseconds since the Unix epoch; `None` is never.
    pub expires_at_us: Option<i64>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    /// The name of the user it belongs to.
    pub user: String,
    pub name: String,
    /// Microseconds since the Unix epoch, like the following.
    pub created_at_us: i64,
    pub created_by: String,
    pub expires_at_us: Option<i64>,
    pub revoked_at_us: Option<i64>,
    /// To about a minute.
    pub last_used_at_us: Option<i64>,
}

/// A new token with its secret, which cannot be shown again. No `Debug`: it would end up in a log.
pub struct CreatedToken {
    pub token: Token,
    pub secret: String,
}

type Row = (
    String,
    String,
    String,
    i64,
    String,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

fn token((id, user, name, created_at_us, created_by, expires, revoked, used): Row) -> Token {
    Token {
        id,
        user,
        name,
        created_at_us,
        created_by,
        expires_at_us: expires,
        revoked_at_us: revoked,
        last_used_at_us: used,
    }
}

/// Reads a user's tokens, oldest first: ids sort by time.
async fn select(sql: &mut SqlConnection, user_id: &str) -> Result<Vec<Token>, RegistryError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT t.id, u.name, t.name, t.created_at, t.created_by, t.expires_at, t.revoked_at, t.last_used_at \
         FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.user_id = $1 ORDER BY t.id",
    )
    .bind(user_id)
    .fetch_all(sql)
    .await?;
    Ok(rows.into_iter().map(token).collect())
}

async fn one(sql: &mut SqlConnection, user_id: &str, id: &str) -> Result<Token, RegistryError> {
    let mut all = select(sql, user_id).await?.into_iter();
    let found = all.find(|token| token.id == id);
    Ok(found.ok_or_else(|| Missing::Token(id.to_owned()))?)
}

fn invalid(field: &'static str, message: impl Into<String>) -> RegistryError {
    let message = message.into();
    RegistryError::InvalidField { field, message }
}

fn check(new: &NewToken) -> Result<(), RegistryError> {
    if new.name.trim().is_empty() || new.name.len() > MAX_NAME_BYTES {
        let message = format!("a token needs a name of 1 to {MAX_NAME_BYTES} bytes, say where it will be used");
        return Err(invalid("name", message));
    }
    if new.expires_at_us.is_some_and(|at| at <= now_us()) {
        return Err(invalid("expires_at", "is over already, name a time to come"));
    }
    Ok(())
}

impl Registry {
    /// Makes sure that an administrator can sign in.
    ///
    /// A given token replaces the one of the user `admin` that is named `bootstrap`, and makes sure that this user is
    /// admin of everything. Without one, the first start makes one and returns it, to be printed once; later starts
    /// return nothing.
    ///
    /// # Errors
    /// When the given token is blank, or the database fails.
    pub async fn ensure_admin_token(&self, given: Option<&str>) -> Result<Option<String>, RegistryError> {
        if given.is_some_and(|token| token.trim().is_empty()) {
            return Err(invalid(
                "PROMPTGATE_ADMIN_TOKEN",
                "the admin token is blank, give one or leave the variable unset",
            ));
        }
        let mut tx = self.begin_write().await?;
        let (any,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM tokens")
            .fetch_one(&mut *tx)
            .await?;
        let (secret, made) = match given {
            Some(given) => (given.to_owned(), None),
            None if any > 0 => return Ok(None),
            None => {
                let made = secret::generate("pga_")?;
                (made.clone(), Some(made))
            }
        };
        let at_us = now_us();
        users::ensure_admin(&mut tx, at_us).await?;
        let (same,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM tokens WHERE user_id = $1 AND digest = $2 AND revoked_at IS NULL \
             AND expires_at IS NULL",
        )
        .bind(ADMIN_ID)
        .bind(digest_hex(&secret))
        .fetch_one(&mut *tx)
        .await?;
        if same > 0 {
            tx.commit().await?;
            return Ok(None);
        }
        // Whoever has the process's environment decides: also over a token that was revoked, or is somebody else's.
        sqlx::query("DELETE FROM tokens WHERE digest = $1 OR (user_id = $2 AND name = $3 AND revoked_at IS NULL)")
            .bind(digest_hex(&secret))
            .bind(ADMIN_ID)
            .bind(BOOTSTRAP)
            .execute(&mut *tx)
            .await?;
        let id = secret::id("tok");
        sqlx::query(
            "INSERT INTO tokens (id, user_id, name, digest, created_at, created_by) \
             VALUES ($1, $2, $3, $4, $5, 'promptgate')",
        )
        .bind(&id)
        .bind(ADMIN_ID)
        .bind(BOOTSTRAP)
        .bind(digest_hex(&secret))
        .bind(at_us)
        .execute(&mut *tx)
        .await?;
        let entry = NewEntry {
            at_us,
            actor: Actor::named("promptgate"),
            action: "token.set",
            subject: ADMIN,
            detail: json!({"token": id, "name": BOOTSTRAP, "generated": made.is_some()}),
        };
        append(&mut tx, &entry).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Returns whose token this is, if it still works.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate_token(&self, token: &str) -> Result<Option<Caller>, RegistryError> {
        type Row = (String, String, Option<i64>, Option<i64>, String, String);
        let mut tx = self.begin_read().await?;
        let row: Option<Row> = sqlx::query_as(
            "SELECT t.id, t.name, t.expires_at, t.last_used_at, u.id, u.name FROM tokens t \
             JOIN users u ON u.id = t.user_id WHERE t.digest = $1 AND t.revoked_at IS NULL \
             AND u.disabled_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)",
        )
        .bind(digest_hex(token))
        .bind(now_us())
        .fetch_optional(&mut *tx)
        .await?;
        let Some((token_id, token, expires_at_us, last_used_at_us, user_id, user)) = row else {
            return Ok(None);
        };
        Ok(Some(Caller {
            grants: users::grants_of(&mut tx, &user_id).await?,
            user_id,
            user,
            token_id,
            token,
            expires_at_us,
            last_used_at_us,
        }))
    }

    /// Notes that a token was used, at most once a minute.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_use(&self, caller: &Caller) -> Result<(), RegistryError> {
        let now = now_us();
        if !is_due(caller, now) {
            return Ok(());
        }
        sqlx::query(
            "UPDATE tokens SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
        )
        .bind(now)
        .bind(&caller.token_id)
        .execute(self.writer()?)
        .await?;
        Ok(())
    }

    /// Makes a token of a user; the secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// When the name is blank or taken, the end is past, there is no such user, or the database fails.
    pub async fn create_token(
        &self,
        user: &str,
        new: NewToken,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<CreatedToken>, RegistryError> {
        check(&new)?;
        let secret = secret::generate("pga_")?;
        let id = secret::id("tok");
        let mut change = Change::begin(self, actor).await?;
        let user = users::one(change.sql(), user).await?;
        let others = select(change.sql(), &user.id).await?;
        let mut others = others.iter().filter(|token| token.revoked_at_us.is_none());
        if others.clone().count() >= MAX_TOKENS {
            return Err(RegistryError::Conflict(format!(
                "user {:?} has {MAX_TOKENS} tokens, revoke those that are not needed",
                user.name
            )));
        }
        if others.any(|token| token.name == new.name) {
            return Err(RegistryError::Conflict(format!(
                "user {:?} has a token named {:?}, choose another name or revoke that one",
                user.name, new.name
            )));
        }
        let (at_us, author) = (change.at_us, change.actor.name);
        sqlx::query(
            "INSERT INTO tokens (id, user_id, name, digest, created_at, created_by, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&id)
        .bind(&user.id)
        .bind(&new.name)
        .bind(digest_hex(&secret))
        .bind(at_us)
        .bind(author)
        .bind(new.expires_at_us)
        .execute(change.sql())
        .await?;
        let token = one(change.sql(), &user.id, &id).await?;
        let detail = json!({"to": {"token": id, "name": new.name, "expires_at_us": new.expires_at_us}});
        let generation = change.commit("token.create", &user.name, detail).await?;
        Ok(Published {
            value: CreatedToken { token, secret },
            generation,
        })
    }

    /// Revokes a token of a user. Revoking it again changes nothing.
    ///
    /// # Errors
    /// When there is no such user or token, or the database fails.
    pub async fn revoke_token(
        &self,
        user: &str,
        id: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Token>, RegistryError> {
        let mut change = Change::begin(self, actor).await?;
        let user = users::one(change.sql(), user).await?;
        let before = one(change.sql(), &user.id, id).await?;
        if before.revoked_at_us.is_some() {
            let generation = user.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        let at_us = change.at_us;
        sqlx::query("UPDATE tokens SET revoked_at = $1 WHERE id = $2")
            .bind(at_us)
            .bind(id)
            .execute(change.sql())
            .await?;
        let value = one(change.sql(), &user.id, id).await?;
        let detail = json!({"token": id, "name": value.name});
        let generation = change.commit("token.revoke", &user.name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Lists a user's tokens, oldest first, revoked and expired ones included.
    ///
    /// # Errors
    /// When there is no such user, or the database fails.
    pub async fn list_tokens(&self, user: &str) -> Result<Vec<Token>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let user = users::one(&mut tx, user).await?;
        select(&mut tx, &user.id).await
    }
}

fn is_due(caller: &Caller, now: i64) -> bool {
    caller
        .last_used_at_us
        .is_none_or(|last| now.saturating_sub(last) >= LAST_USED_STEP_US)
}
