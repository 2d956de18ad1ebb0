//! Where the gateway listens, how it stops, what it is called.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use super::Env;
use super::problem::shown;
use super::reader::Reader;

const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 60 * 60);

/// `[server]`: where the gateway listens, and how it stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The data plane: what applications call.
    pub listen: SocketAddr,
    /// The control plane: API, console, metrics and health.
    pub admin_listen: SocketAddr,
    pub auth: Auth,
    /// Threads with their own event loop, connections and records; available cores by default.
    pub workers: usize,
    /// How long a stop waits for open requests.
    pub drain: Duration,
    /// Name of this process in records and metrics; the host's name by default.
    pub node: String,
}

/// Whether applications must show a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Required,
    /// Anyone who can connect may call; accepted on loopback only.
    Off,
}

impl Default for Server {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Server {
            listen: SocketAddr::new(loopback, 8080),
            admin_listen: SocketAddr::new(loopback, 8081),
            auth: Auth::Required,
            workers: thread::available_parallelism().map_or(1, NonZero::get),
            drain: Duration::from_secs(30),
            node: node_name(&|name| std::env::var(name).ok()),
        }
    }
}

impl Server {
    pub(super) fn read(r: &mut Reader<'_>, env: Env<'_>) -> Self {
        let default = Server::default();
        let auths = [("required", Some(Auth::Required)), ("off", Some(Auth::Off))];
        let server = Server {
            listen: r.address("listen", default.listen),
            admin_listen: r.address("admin_listen", default.admin_listen),
            auth: r.choice("auth", default.auth, &auths),
            workers: r.integer("workers", default.workers, 1..=1024),
            drain: r.duration("drain", default.drain, DRAIN),
            node: r
                .parsed("node", "gateway-1", parse_node)
                .unwrap_or_else(|| node_name(env)),
        };
        if r.sound(&["listen", "auth"]) {
            server.check_auth(r);
        }
        if r.sound(&["listen", "admin_listen"]) && same_socket(server.listen, server.admin_listen) {
            let (listen, admin) = (server.listen, server.admin_listen);
            let message = format!(r#""{admin}" takes the port of server.listen ("{listen}"), write another port"#);
            r.problem("admin_listen", message);
        }
        server
    }

    fn check_auth(&self, r: &mut Reader<'_>) {
        if self.auth == Auth::Off && !self.listen.ip().is_loopback() {
            let message = format!(
                r#""off" would let anyone who reaches {} spend your provider credentials; listen on 127.0.0.1 or write "required""#,
                self.listen
            );
            r.problem("auth", message);
        }
    }
}

/// Whether two listeners would fight for one port; port 0 is a fresh one each.
fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && overlap
}

fn parse_node(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 100 || !text.chars().all(allowed) {
        let text = shown(text);
        return Err(format!(
            "{text} is not a node name: up to 100 letters, digits, '.', '_' and '-'"
        ));
    }
    Ok(text.to_owned())
}

fn node_name(env: Env<'_>) -> String {
    let name = fs::read_to_string("/etc/hostname").ok();
    let name = name.and_then(|name| parse_node(name.trim()).ok());
    let name = name.or_else(|| parse_node(env("HOSTNAME")?.trim()).ok());
    name.unwrap_or_else(|| "node".to_owned())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::tests::{parse, problems};

    #[test]
    fn listeners_that_cannot_be_are_refused() {
        let text = "[server]\nlisten = \"0.0.0.0:8081\"\nauth = \"off\"\n";
        assert_snapshot!(problems(text), @r#"
        config/promptgate.toml:1: server.admin_listen: "127.0.0.1:8081" takes the port of server.listen ("0.0.0.0:8081"), write another port
        config/promptgate.toml:3: server.auth: "off" would let anyone who reaches 0.0.0.0:8081 spend your provider credentials; listen on 127.0.0.1 or write "required"
        "#);
        let any_port = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nauth = \"off\"\n";
        assert_eq!(parse(any_port).unwrap().server.auth, Auth::Off);
    }
}
