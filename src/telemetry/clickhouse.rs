//! ClickHouse: the sink that scales, and the store it is read from.
//!
//! Everything goes over HTTP through the `clickhouse` crate. A segment's rows are RowBinary already, so an INSERT sends
//! them as they are: nothing is decoded or encoded again. Nothing here is needed for serving: a server that is down,
//! slow or not there yet delays records, which wait in the spool.
//!
//! | file | what |
//! |---|---|
//! | `sink` | one batch, one INSERT a table, exactly once |
//! | `servers` | which of several servers is next |
//! | `table` | inserting into a table, and asking it for what it has |
//! | [`schema`] | numbered migrations, under a lock |
//! | `cluster` | the same for a cluster |
//! | `store` | reading back |
//! | `erase` | taking content out again |
//! | `error` | what a failure says about the fate of an INSERT |

mod cluster;
mod erase;
mod error;
pub mod schema;
mod servers;
mod sink;
mod store;
mod table;

pub use error::ClickHouseError;
pub use sink::ClickHouseSink;
pub use store::ClickHouseStore;

use clickhouse::Client;

use crate::config::ClickHouse;

/// A client for one of the configured addresses, without a database: connects when first used.
fn client(server: &ClickHouse, url: &str) -> Client {
    let client = Client::default()
        .with_url(url)
        .with_user(&server.user)
        .with_product_info("promptgate", env!("CARGO_PKG_VERSION"));
    match &server.password {
        Some(password) => client.with_password(password.expose()),
        None => client,
    }
}
