//! How the registry is opened and the first table published, also while a shared registry is away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::registry::{Registry, RegistryError};
use crate::snapshot::{Cell, Following, Publisher, SnapshotFile};

/// How often a registry that was away at the start is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What stands after the start.
pub struct Started {
    pub registry: Arc<Registry>,
    pub publisher: Arc<Publisher>,
    /// The admin token, if this start made one.
    pub new_admin_token: Option<String>,
    /// Whether the table is that of an earlier run, and the registry yet to be reached.
    pub away: bool,
}

fn following(config: &Config) -> Following {
    let registry = &config.registry;
    let file = registry
        .is_postgres()
        .then(|| SnapshotFile::new(&registry.snapshot_path, &registry.url));
    Following {
        // A file belongs to this process, which knows of every change: looking is for those who write to it beside us.
        poll: registry.poll,
        file,
    }
}

/// Opens the registry and publishes the first table: the registry's, or that of the last run if it is away.
///
/// # Errors
/// When neither is to be had.
pub async fn start(config: &Config, cell: &Arc<Cell>, admin_token: Option<&str>) -> anyhow::Result<Started> {
    let registry = Arc::new(Registry::closed(config.registry.connect_url().expose()));
    let why = match open(&registry, config, cell, admin_token).await {
        Ok((publisher, new_admin_token)) => {
            return Ok(Started {
                registry,
                publisher,
                new_admin_token,
                away: false,
            });
        }
        Err(why @ RegistryError::Unavailable(_)) if config.registry.is_postgres() => why,
        Err(why) => return Err(why).context("cannot open the registry"),
    };
    let max_age = config.registry.snapshot_max_age;
    if max_age.is_zero() {
        return Err(why).context("cannot open the registry, and registry.snapshot_max_age forbids to start without it");
    }
    let publisher = Publisher::resume(Arc::clone(&registry), Arc::clone(cell), following(config), max_age)
        .await
        .with_context(|| format!("cannot open the registry: {why}"))?;
    tracing::error!(
        error = %why,
        generation = publisher.generation(),
        age = publisher.age().as_secs(),
        "THE REGISTRY IS AWAY: serving the last snapshot on disk, in which keys revoked since go on working; nothing can be changed"
    );
    Ok(Started {
        registry,
        publisher,
        new_admin_token: None,
        away: true,
    })
}

async fn open(
    registry: &Arc<Registry>,
    config: &Config,
    cell: &Arc<Cell>,
    admin_token: Option<&str>,
) -> Result<(Arc<Publisher>, Option<String>), RegistryError> {
    registry.connect().await?;
    let new_admin_token = registry.ensure_admin_token(admin_token).await?;
    let publisher = Publisher::start(Arc::clone(registry), Arc::clone(cell), following(config)).await?;
    Ok((publisher, new_admin_token))
}

/// Tries to reach a registry that was away at the start; returns once it is there.
pub async fn reach(registry: Arc<Registry>, admin_token: Option<String>) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(TRY_EVERY).await;
        let reached = match registry.connect().await {
            Ok(()) => match &admin_token {
                Some(token) => registry.ensure_admin_token(Some(token)).await.map(|_| ()),
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        match reached {
            Ok(()) => return tracing::info!("the registry is there"),
            // A schema that this program cannot use, say: somebody must do something, and the old table is served on.
            Err(error) if said != error.to_string() => {
                tracing::error!(%error, "cannot open the registry, trying again");
                said = error.to_string();
            }
            Err(_) => {}
        }
    }
}
