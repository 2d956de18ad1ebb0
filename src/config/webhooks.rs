//! Where webhooks may lead.

use std::time::Duration;

use super::reader::Reader;
use crate::domain::webhook::Networks;

/// `[webhooks]`: what the operator lets those do who make webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Networks that are not public, and yet may be called.
    pub allow_networks: Networks,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl Default for Webhooks {
    fn default() -> Self {
        Webhooks {
            allow_networks: Networks::default(),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Webhooks {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let default = Webhooks::default();
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        let networks = r.texts("allow_networks", "10.1.0.0/16", Networks::parse);
        Webhooks {
            allow_networks: Networks::new(networks.unwrap_or_default()),
            timeout: r.duration("timeout", default.timeout, range),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::config::tests::problems;

    #[test]
    fn networks_are_networks() {
        let text = problems("[webhooks]\nallow_networks = [\"10.1.0.0/16\", \"intranet\"]");
        assert_snapshot!(text, @r#"config/promptgate.toml:2: webhooks.allow_networks: "intranet" is not a network, write e.g. "10.1.0.0/16""#);
    }
}
