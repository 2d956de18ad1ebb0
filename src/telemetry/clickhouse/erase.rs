//! Erasing on the server: a mutation, since rows of a MergeTree are not updated in place. It waits until the mutation is
//! done; the parts it replaced are removed by the server some minutes later.

use super::{ClickHouseError, ClickHouseStore};
use crate::telemetry::erase::Erase;
use crate::telemetry::store::StoreError;

impl ClickHouseStore {
    /// Erases; returns how many exchanges of each.
    pub async fn erase(&self, erasures: &[Erase]) -> Result<Vec<u64>, StoreError> {
        let mut counts = Vec::with_capacity(erasures.len());
        let mut concerned = Vec::new();
        for erase in erasures {
            let exchanges = condition(erase);
            let sql = format!("SELECT count() FROM exchanges WHERE capture != 'erased' AND {exchanges}");
            let count: u64 = self
                .client
                .query_raw(&sql)
                .fetch_one()
                .await
                .map_err(ClickHouseError::from)?;
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
        let feedback = format!(
            "ALTER TABLE feedback UPDATE text = '', comment = '' WHERE (text != '' OR comment != '') AND ({} OR {})",
            of_exchanges("exchange_id", ""),
            of_exchanges("response_id", " AND response_id != ''"),
        );
        let exchanges = format!(
            "ALTER TABLE exchanges UPDATE variables = '', request = '', response = '', tags = map(), session = '', \
             document_ids = [], capture = 'erased' WHERE capture != 'erased' AND ({concerned})"
        );
        // On all replicas, and before it answers.
        let client = self.client.clone().with_setting("mutations_sync", "2");
        for sql in [feedback, exchanges] {
            client.query_raw(&sql).execute().await.map_err(ClickHouseError::from)?;
        }
        Ok(counts)
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
