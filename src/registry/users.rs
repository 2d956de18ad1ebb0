//! Users: people and services, and what they are granted. Signing in is by token only; the column for a password is
//! there, and empty.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::change::{Actor, Change};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, environments, number, secret};
use crate::domain::prompt::validate_prompt_id;
use crate::domain::role::{EVERYWHERE, Grant, Role};

/// The user that the first token belongs to.
pub(super) const ADMIN: &str = "admin";
pub(super) const ADMIN_ID: &str = "usr_admin";

/// Names that stand for something else: the program, what was there before users, nobody, and oneself.
const RESERVED: [&str; 4] = ["promptgate", "bootstrap", "anonymous", "me"];

const MAX_NAME_BYTES: usize = 100;
const MAX_DISPLAY_NAME_BYTES: usize = 200;

/// What stands behind a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    Person,
    /// A program: CI, a bot.
    Service,
}

impl UserKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Service => "service",
        }
    }

    fn read(text: &str) -> Self {
        if text == "service" { Self::Service } else { Self::Person }
    }
}

/// A user to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    pub name: String,
    pub kind: UserKind,
    pub display_name: String,
    pub grants: Vec<Grant>,
}

/// A user, with what it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: String,
    /// Never changes: authors are named by it.
    pub name: String,
    pub kind: UserKind,
    pub display_name: String,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub created_by: String,
    /// Since when its tokens do not work.
    pub disabled_at_us: Option<i64>,
    /// In a fixed order.
    pub grants: Vec<Grant>,
    /// The generation of its last change.
    pub generation: u64,
}

/// What to change of a user; `None` leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserUpdate {
    pub display_name: Option<String>,
    pub disabled: Option<bool>,
}

type Row = (String, String, String, String, i64, String, Option<i64>, i64);

async fn user(sql: &mut SqlConnection, row: Row) -> Result<User, RegistryError> {
    let (id, name, kind, display_name, created_at_us, created_by, disabled_at_us, generation) = row;
    Ok(User {
        grants: grants_of(sql, &id).await?,
        id,
        name,
        kind: UserKind::read(&kind),
        display_name,
        created_at_us,
        created_by,
        disabled_at_us,
        generation: number(generation)?,
    })
}

/// Reads what a user is granted, in a fixed order. A role of a newer program grants nothing.
pub(super) async fn grants_of(sql: &mut SqlConnection, user_id: &str) -> Result<Vec<Grant>, RegistryError> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT role, environment, folder FROM grants WHERE user_id = $1")
            .bind(user_id)
            .fetch_all(sql)
            .await?;
    let mut grants: Vec<Grant> = rows
        .into_iter()
        .filter_map(|(role, environment, folder)| {
            let role = Role::parse(&role).ok()?;
            Some(Grant {
                role,
                environment,
                folder,
            })
        })
        .collect();
    grants.sort();
    Ok(grants)
}

/// Reads a user by id or name, who must exist.
pub(super) async fn one(sql: &mut SqlConnection, name: &str) -> Result<User, RegistryError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, name, kind, display_name, created_at, created_by, disabled_at, generation FROM users \
         WHERE id = $1 OR name = $1",
    )
    .bind(name)
    .fetch_optional(&mut *sql)
    .await?;
    let row = row.ok_or_else(|| Missing::User(name.to_owned()))?;
    user(sql, row).await
}

fn validate_name(name: &str) -> Result<(), String> {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'@' | b'+');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
        return Err(format!(
            "{name:?} is not a user name, use 1 to {MAX_NAME_BYTES} lowercase letters, digits, '.', '_', '-', '@' and \
             '+': ada@example.com"
        ));
    }
    if RESERVED.contains(&name) || name.starts_with("usr_") {
        return Err(format!("the user name {name:?} is reserved, choose another"));
    }
    Ok(())
}

fn validate_display_name(name: &str) -> Result<(), RegistryError> {
    if name.len() <= MAX_DISPLAY_NAME_BYTES {
        return Ok(());
    }
    Err(RegistryError::InvalidField {
        field: "display_name",
        message: format!("has {} bytes, at most {MAX_DISPLAY_NAME_BYTES} are allowed", name.len()),
    })
}

/// Brings a grant into its stored form, after a look at what it names.
async fn checked(sql: &mut SqlConnection, mut grant: Grant) -> Result<Grant, RegistryError> {
    if grant.environment != EVERYWHERE {
        environments::one(sql, &grant.environment).await?;
    }
    if grant.folder != EVERYWHERE {
        grant.folder = grant.folder.trim_end_matches('/').to_owned();
        validate_prompt_id(&grant.folder).map_err(|why| RegistryError::InvalidField {
            field: "folder",
            message: format!("{why}; a folder is the first segments of ids, or \"*\" for all prompts"),
        })?;
    }
    Ok(grant)
}

async fn insert_grant(change: &mut Change<'_>, user_id: &str, grant: &Grant) -> Result<bool, RegistryError> {
    let (at_us, by) = (change.at_us, change.actor.name);
    let made = sqlx::query(
        "INSERT INTO grants (user_id, role, environment, folder, granted_at, granted_by) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, role, environment, folder) DO NOTHING",
    )
    .bind(user_id)
    .bind(grant.role.as_str())
    .bind(&grant.environment)
    .bind(&grant.folder)
    .bind(at_us)
    .bind(by)
    .execute(change.sql())
    .await?;
    Ok(made.rows_affected() > 0)
}

/// Refuses what would leave nobody who can grant anything.
async fn require_an_admin(sql: &mut SqlConnection) -> Result<(), RegistryError> {
    let (admins,): (i64,) = sqlx::query_as(
        "SELECT COUNT(*) FROM grants g JOIN users u ON u.id = g.user_id \
         WHERE g.role = 'admin' AND g.environment = '*' AND g.folder = '*' AND u.disabled_at IS NULL",
    )
    .fetch_one(sql)
    .await?;
    if admins > 0 {
        return Ok(());
    }
    Err(RegistryError::Conflict(
        "nobody would be admin of everything any more, make somebody else admin first".to_owned(),
    ))
}

async fn touch(change: &mut Change<'_>, user_id: &str) -> Result<(), RegistryError> {
    let stamp = change.stamp();
    sqlx::query("UPDATE users SET generation = $1 WHERE id = $2")
        .bind(stamp)
        .bind(user_id)
        .execute(change.sql())
        .await?;
    Ok(())
}

/// Grants as the audit log shows them.
fn shown(grants: &[Grant]) -> Value {
    grants.iter().map(ToString::to_string).collect()
}

/// Makes sure that the user `admin` is there, enabled, and admin of everything.
pub(super) async fn ensure_admin(sql: &mut SqlConnection, at_us: i64) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO users (id, name, kind, display_name, password_hash, created_at, created_by, disabled_at, \
         generation) VALUES ($1, $2, 'person', '', NULL, $3, 'promptgate', NULL, 1) \
         ON CONFLICT (id) DO UPDATE SET disabled_at = NULL",
    )
    .bind(ADMIN_ID)
    .bind(ADMIN)
    .bind(at_us)
    .execute(&mut *sql)
    .await?;
    sqlx::query(
        "INSERT INTO grants (user_id, role, environment, folder, granted_at, granted_by) \
         VALUES ($1, 'admin', '*', '*', $2, 'promptgate') \
         ON CONFLICT (user_id, role, environment, folder) DO NOTHING",
    )
    .bind(ADMIN_ID)
    .bind(at_us)
    .execute(sql)
    .await?;
    Ok(())
}

impl Registry {
    /// Creates a user.
    ///
    /// # Errors
    /// When the name has the wrong form or is taken, a grant names what is not there, or the database fails.
    pub async fn create_user(
        &self,
        new: NewUser,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<User>, RegistryError> {
        validate_name(&new.name).map_err(|message| RegistryError::InvalidField { field: "name", message })?;
        validate_display_name(&new.display_name)?;
        let mut change = Change::begin(self, actor).await?;
        match one(change.sql(), &new.name).await {
            Err(RegistryError::NotFound(_)) => {}
            Ok(_) => return Err(RegistryError::Conflict(format!("user {:?} exists already", new.name))),
            Err(error) => return Err(error),
        }
        let id = secret::id("usr");
        let (at_us, stamp, author) = (change.at_us, change.stamp(), change.actor.name);
        sqlx::query(
            "INSERT INTO users (id, name, kind, display_name, password_hash, created_at, created_by, disabled_at, \
             generation) VALUES ($1, $2, $3, $4, NULL, $5, $6, NULL, $7)",
        )
        .bind(&id)
        .bind(&new.name)
        .bind(new.kind.as_str())
        .bind(&new.display_name)
        .bind(at_us)
        .bind(author)
        .bind(stamp)
        .execute(change.sql())
        .await?;
        for grant in new.grants {
            let grant = checked(change.sql(), grant).await?;
            insert_grant(&mut change, &id, &grant).await?;
        }
        let value = one(change.sql(), &id).await?;
        let detail = json!({"to": {"id": id, "kind": value.kind.as_str(), "grants": shown(&value.grants)}});
        let generation = change.commit("user.create", &value.name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Changes how a user is called, or whether its tokens work. What changes nothing makes no generation.
    ///
    /// # Errors
    /// When there is no such user, nobody would be admin any more, or the database fails.
    pub async fn update_user(
        &self,
        name: &str,
        update: UserUpdate,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<User>, RegistryError> {
        if let Some(name) = &update.display_name {
            validate_display_name(name)?;
        }
        let mut change = Change::begin(self, actor).await?;
        let before = one(change.sql(), name).await?;
        let disabled = update.disabled.unwrap_or(before.disabled_at_us.is_some());
        let disabled_at = disabled.then(|| before.disabled_at_us.unwrap_or(change.at_us));
        let display_name = update.display_name.unwrap_or_else(|| before.display_name.clone());
        if disabled_at == before.disabled_at_us && display_name == before.display_name {
            let generation = before.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        let stamp = change.stamp();
        sqlx::query("UPDATE users SET display_name = $1, disabled_at = $2, generation = $3 WHERE id = $4")
            .bind(&display_name)
            .bind(disabled_at)
            .bind(stamp)
            .bind(&before.id)
            .execute(change.sql())
            .await?;
        require_an_admin(change.sql()).await?;
        let value = one(change.sql(), &before.id).await?;
        let state = |user: &User| json!({"display_name": user.display_name, "disabled": user.disabled_at_us.is_some()});
        let detail = json!({"from": state(&before), "to": state(&value)});
        let generation = change.commit("user.update", &value.name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Grants a user a role. Granting it again changes nothing.
    ///
    /// # Errors
    /// When the user or the environment does not exist, the folder has the wrong form, or the database fails.
    pub async fn add_grant(
        &self,
        name: &str,
        grant: Grant,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<User>, RegistryError> {
        let mut change = Change::begin(self, actor).await?;
        let before = one(change.sql(), name).await?;
        let grant = checked(change.sql(), grant).await?;
        if !insert_grant(&mut change, &before.id, &grant).await? {
            let generation = before.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        touch(&mut change, &before.id).await?;
        let value = one(change.sql(), &before.id).await?;
        let detail = json!({"from": shown(&before.grants), "to": shown(&value.grants), "granted": grant.to_string()});
        let generation = change.commit("grant.add", &value.name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Takes a grant away.
    ///
    /// # Errors
    /// When the user does not have it, nobody would be admin any more, or the database fails.
    pub async fn remove_grant(
        &self,
        name: &str,
        grant: Grant,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<User>, RegistryError> {
        let mut change = Change::begin(self, actor).await?;
        let before = one(change.sql(), name).await?;
        let folder = match grant.folder.trim_end_matches('/') {
            "" => EVERYWHERE,
            folder => folder,
        };
        let removed =
            sqlx::query("DELETE FROM grants WHERE user_id = $1 AND role = $2 AND environment = $3 AND folder = $4")
                .bind(&before.id)
                .bind(grant.role.as_str())
                .bind(&grant.environment)
                .bind(folder)
                .execute(change.sql())
                .await?;
        if removed.rows_affected() == 0 {
            let (user, grant) = (before.name, grant.to_string());
            return Err(Missing::Grant { user, grant }.into());
        }
        require_an_admin(change.sql()).await?;
        touch(&mut change, &before.id).await?;
        let value = one(change.sql(), &before.id).await?;
        let detail = json!({"from": shown(&before.grants), "to": shown(&value.grants), "removed": grant.to_string()});
        let generation = change.commit("grant.remove", &value.name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a user by id or name.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn user(&self, name: &str) -> Result<User, RegistryError> {
        one(&mut *self.reader()?.acquire().await?, name).await
    }

    /// Lists users by name, disabled ones included.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_users(&self, page: PageOf<'_>) -> Result<Page<User>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, name, kind, display_name, created_at, created_by, disabled_at, generation FROM users \
             WHERE name > $1 ORDER BY name LIMIT $2",
        )
        .bind(page.cursor.unwrap_or_default())
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let mut users = Vec::with_capacity(rows.len());
        for row in rows {
            users.push(user(&mut tx, row).await?);
        }
        Ok(page.page(users, |user| user.name.clone()))
    }
}
