//! Erasing on the server: a mutation, since rows of a MergeTree are not updated in place. It waits until the mutation is
//! done; the parts it replaced are removed by the server some minutes later.

use super::{ClickHouseError, ClickHouseStore};
use crate::telemetry::erase::Erase;
use crate::telemetry::store::StoreError;
use crate::telemetry::store::filter::{Dialect, Sql};

impl ClickHouseStore {
    /// Erases; returns how many exchanges of each.
    pub async fn erase(&self, erasures: &[Erase]) -> Result<Vec<u64>, StoreError> {
        let mut counts = Vec::with_capacity(erasures.len());
        let mut concerned = Vec::new();
        for erase in erasures {
            let exchanges = condition(erase);
            let mut sql = Sql::new(
                Dialect::ClickHouse,
                "SELECT count() FROM exchanges WHERE capture != 'erased'",
            );
            sql.push(&format!(" AND {exchanges}"));
            let count = self
                .rows(sql, |row| row.u64())
                .await?
                .first()
                .copied()
                .unwrap_or_default();
            counts.push(count);
            if count > 0 {
                concerned.push(exchanges);
            }
        }
        if concerned.is_empty() {
            return Ok(counts);
        }
        let concerned = concerned.join(" OR ");
        // Feedback first: it is found by exchanges that are not erased yet, so this may be repeated after a failure.
        let of_exchanges = |column: &str, more: &str| {
            format!("{column} IN (SELECT {column} FROM exchanges WHERE capture != 'erased'{more} AND ({concerned}))")
        };
        self.alter(
            "feedback",
            &format!(
                "UPDATE text = '', comment = '' WHERE (text != '' OR comment != '') AND ({} OR {})",
                of_exchanges("exchange_id", ""),
                of_exchanges("response_id", " AND response_id != ''"),
            ),
        )
        .await?;
        self.alter(
            "exchanges",
            &format!(
                "UPDATE variables = '', request = '', response = '', tags = map(), session = '', document_ids = [], \
                 capture = 'erased' WHERE capture != 'erased' AND ({concerned})"
            ),
        )
        .await?;
        Ok(counts)
    }

    /// Alters the table that holds the rows, wherever its parts are, and waits until that is done.
    async fn alter(&self, table: &str, what: &str) -> Result<(), ClickHouseError> {
        let sql = match &self.cluster {
            None => format!("ALTER TABLE {table} {what}"),
            Some(cluster) => format!("ALTER TABLE {table}_local ON CLUSTER {cluster} {what}"),
        };
        let mut last = ClickHouseError::Unreachable("there is no server".to_owned());
        for client in &self.clients {
            // On all replicas, before it answers.
            let client = client
                .clone()
                .with_setting("max_execution_time", "0")
                .with_setting("mutations_sync", "2")
                .with_setting("allow_nondeterministic_mutations", "1");
            match client.query_raw(&sql).execute().await.map_err(ClickHouseError::from) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_outage() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// The exchanges of an erasure. Its hash is written into the text: it is 32 hexadecimal digits, as the registry checks.
fn condition(erase: &Erase) -> String {
    let hash: String = erase.user_hash.chars().filter(char::is_ascii_hexdigit).collect();
    format!(
        "((user = '{hash}' OR unit = '{hash}') AND started_at <= fromUnixTimestamp64Micro({}, 'UTC'))",
        erase.until
    )
}
