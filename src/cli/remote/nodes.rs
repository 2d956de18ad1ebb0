//! `promptgate nodes`

use serde_json::Value;

use super::{Server, block_on, table, text};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        let mut answer = remote.get("/nodes").await?;
        let items = match answer["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let header = [
            "node",
            "address",
            "version",
            "state",
            "generation",
            "behind",
            "confirmed",
            "seen",
        ];
        table::print(remote.json, &items, header, |item| {
            let mark = if item["this"] == true { " (this)" } else { "" };
            [
                format!("{}{mark}", text(&item["name"])),
                text(&item["address"]),
                text(&item["version"]),
                text(&item["state"]),
                text(&item["generation"]),
                text(&item["lag"]["generations"]),
                format!("{:.1} s ago", item["snapshot_age_seconds"].as_f64().unwrap_or_default()),
                text(&item["seen_at"]),
            ]
        });
        if !remote.json {
            println!("the registry is at generation {}", text(&answer["generation"]));
        }
        Ok(())
    })
}
