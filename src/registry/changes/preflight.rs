//! What a preflight found out about a change: kept with it, and a check that an environment may require.

use serde_json::{Value, json};

use super::{ChangeRecord, one, review, subject};
use crate::domain::review::CheckState;
use crate::registry::change::{Actor, Change};
use crate::registry::{Published, Registry, RegistryError, text};

/// The check that promptgate reports itself; nobody else may.
pub const PREFLIGHT: &str = "preflight";

/// Who is said to have reported it.
const REPORTER: &str = "promptgate";

/// What a preflight found.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPreflight {
    /// The revision that was looked at.
    pub revision: u32,
    pub state: CheckState,
    pub summary: String,
    /// Counts only: everybody who sees the change sees it.
    pub found: Value,
}

impl Registry {
    /// Notes what a preflight found, and reports its check. It counts for nothing once the change was revised or is over:
    /// then nothing is written. Applies the change like any check that was the last one missing.
    ///
    /// # Errors
    /// When there is no such change, or the database fails.
    pub async fn note_preflight(
        &self,
        id: u64,
        preflight: NewPreflight,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        if before.revision != preflight.revision || before.state.is_over() {
            let generation = change.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        sqlx::query("UPDATE changes SET preflight = $1 WHERE id = $2")
            .bind(text(&preflight.found))
            .bind(id.cast_signed())
            .execute(change.sql())
            .await?;
        let known = before.checks.iter().find(|check| check.name == PREFLIGHT);
        let from = known.map(|known| before.check_state(known).as_str());
        let detail = json!({
            "environment": before.environment, "revision": before.revision, "check": PREFLIGHT,
            "from": from, "to": preflight.state.as_str(), "message": preflight.summary,
        });
        let check = review::Report {
            name: PREFLIGHT,
            state: preflight.state,
            url: None,
            summary: &preflight.summary,
            reporter: REPORTER,
        };
        review::write_check(&mut change, &before, &check).await?;
        change.audit("change.preflight", &subject(id), detail).await?;
        review::apply_if_due(&mut change, id).await?;
        review::finish(change, id).await
    }
}
