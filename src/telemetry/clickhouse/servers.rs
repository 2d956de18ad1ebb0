//! Which of several servers is next. Pure: the time is an argument.
//!
//! The server that worked last is asked first, then the others in turn. One that fails rests, longer each time, so that
//! it costs no batch a timeout. In a cluster each batch has a home instead, by its name: so batches spread over the
//! servers, and one that is offered again after a crash goes where it went before.

const REST_MIN_MICROS: i64 = 1_000_000;
const REST_MAX_MICROS: i64 = 30_000_000;

/// What is known of one server. Times are µs since the epoch.
#[derive(Debug, Clone, Copy, Default)]
struct Server {
    /// When it first failed of those times since it worked last.
    away_since: Option<i64>,
    rest_micros: i64,
    rests_until: i64,
}

/// The servers, by their place in the configuration.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    last_good: usize,
    spread: bool,
}

impl Servers {
    pub fn new(count: usize, spread: bool) -> Self {
        Self {
            servers: vec![Server::default(); count],
            last_good: 0,
            spread,
        }
    }

    /// All servers in the order to try them for a batch; those that rest come last.
    pub fn order(&self, token: &str, now: i64) -> Vec<usize> {
        let count = self.servers.len();
        let first = match self.spread {
            true => crc32fast::hash(token.as_bytes()) as usize % count,
            false => self.last_good,
        };
        let mut order: Vec<usize> = (0..count).map(|i| (first + i) % count).collect();
        order.sort_by_key(|i| self.servers[*i].rests_until > now);
        order
    }

    pub fn worked(&mut self, server: usize) {
        self.servers[server] = Server::default();
        self.last_good = server;
    }

    /// `part`: how much of the rest to take, 0.5 to 1.
    pub fn failed(&mut self, server: usize, now: i64, part: f64) {
        let server = &mut self.servers[server];
        server.away_since.get_or_insert(now);
        server.rest_micros = (server.rest_micros * 2).clamp(REST_MIN_MICROS, REST_MAX_MICROS);
        server.rests_until = now + (server.rest_micros as f64 * part) as i64;
    }

    /// How long the server has not worked, µs.
    pub fn away(&self, server: usize, now: i64) -> i64 {
        self.servers[server].away_since.map_or(0, |since| now - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_that_worked_last_is_first_and_one_that_failed_rests() {
        let mut servers = Servers::new(3, false);
        assert_eq!(servers.order("t", 0), [0, 1, 2]);
        servers.failed(0, 0, 1.0);
        assert_eq!(servers.order("t", 999_999), [1, 2, 0]);
        servers.worked(1);
        assert_eq!(
            servers.order("t", 1_000_001),
            [1, 2, 0],
            "no way back until there is a need"
        );
        servers.failed(1, 2_000_000, 1.0);
        servers.failed(1, 4_000_000, 1.0);
        assert_eq!(
            servers.order("t", 5_500_000),
            [2, 0, 1],
            "the second rest is twice as long"
        );
        assert_eq!(servers.order("t", 6_000_000), [1, 2, 0]);
        assert_eq!(
            (servers.away(1, 62_000_000), servers.away(2, 62_000_000)),
            (60_000_000, 0)
        );
        for _ in 0..20 {
            servers.failed(2, 0, 0.5);
        }
        assert_eq!(servers.order("t", 15_000_000), [1, 2, 0]);
    }

    #[test]
    fn spread_batches_keep_their_home() {
        let servers = Servers::new(3, true);
        let homes: Vec<usize> = (0..100).map(|i| servers.order(&format!("b/0-{i}"), 0)[0]).collect();
        for server in 0..3 {
            assert!(homes.iter().filter(|home| **home == server).count() > 15, "{homes:?}");
        }
        let again: Vec<usize> = (0..100).map(|i| servers.order(&format!("b/0-{i}"), 9)[0]).collect();
        assert_eq!(homes, again);
    }
}
