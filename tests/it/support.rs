//! What the tests start and how they look at it.

mod answer;
mod gateway;
mod mock;
mod process;
mod wire;

use std::path::Path;
use std::time::{Duration, Instant};

pub use answer::Answer;
pub use gateway::{TestGateway, read_all};
pub use mock::{Mock, scripted};
pub use process::{Process, promptgate};
pub use wire::{Wire, content_of, events, head};

/// The provider's key, which the mock demands and no caller may ever see.
pub const PROVIDER_KEY: &str = "sk-upstream-secret";
/// The environment variable that the configuration takes it from.
pub const PROVIDER_KEY_ENV: &str = "IT_PROVIDER_KEY";
pub const ADMIN_TOKEN: &str = "pga_integration_test_token_0123456789";
/// Far beyond what anything takes, even while other builds run: only a failure waits so long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `probe` returns something.
#[track_caller]
pub fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    wait(what.to_owned(), caller, probe)
}

async fn wait<T>(
    what: String,
    caller: &'static std::panic::Location<'static>,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "{caller}: waited {DEADLINE:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The configuration of both kinds of gateway: its data in `folder`, every model at `provider`.
pub fn config_text(folder: &Path, provider: &str) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        workers = 2
        drain = "10s"
        node = "test"
        [registry]
        url = "sqlite:{registry}"
        [telemetry]
        sqlite_path = "{telemetry}"
        spool_dir = "{spool}"
        seal_after = "50ms"
        [[providers]]
        name = "mock"
        kind = "openai"
        base_url = "{provider}"
        api_key_env = "{PROVIDER_KEY_ENV}"
        [[models]]
        name = "mock-model*"
        targets = [{{ provider = "mock" }}]
        [[models]]
        name = "renamed-model"
        targets = [{{ provider = "mock", model = "mock-model" }}]
        "#,
        registry = path("registry.db"),
        telemetry = path("telemetry.db"),
        spool = path("spool"),
    )
}
