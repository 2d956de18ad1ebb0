//! Servers, databases and telemetry into them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::records::record;
use promptgate::config::{ClickHouse, Secret, Sqlite};
use promptgate::metrics::Metrics;
use promptgate::telemetry::clickhouse::schema::Schema;
use promptgate::telemetry::{Recorder, SinkOptions, Telemetry, TelemetryOptions};
use tokio::runtime::Handle;
use tokio::task::LocalSet;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// A process of `tests/clickhouse/server.py`; ends when dropped, or with this process.
pub struct Server {
    pub url: String,
    child: Child,
}

impl Server {
    /// Starts one on a folder, on a free port if `port` is 0.
    pub fn start(data: &Path, port: u16) -> Self {
        Self::start_with(data, port, &[])
    }

    /// The same with more arguments.
    pub fn start_with(data: &Path, port: u16, more: &[&str]) -> Self {
        let python = std::env::var("PROMPTGATE_TEST_PYTHON").expect(
            "PROMPTGATE_TEST_PYTHON is not set: run the tests by `tests/run`, which installs the ClickHouse engine, or \
             make a venv, `pip install --no-deps -r tests/clickhouse/requirements.txt` in it, and name its python",
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clickhouse/server.py");
        let mut child = Command::new(&python)
            .arg(script)
            .args(["--until-eof", "--port", &port.to_string(), "--data"])
            .arg(data)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {python}: {error}"));
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "the server did not start: {line:?}");
        Self {
            url: line.trim().to_owned(),
            child,
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Orders a fault; see the script.
    pub async fn fault(&self, order: serde_json::Value) {
        let url = format!("{}/__fault", self.url);
        let answer = reqwest::Client::new().post(url).json(&order).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server of all tests that need no fault.
fn shared_url() -> String {
    static OWN: OnceLock<(Server, tempfile::TempDir)> = OnceLock::new();
    std::env::var("CLICKHOUSE_URL").unwrap_or_else(|_| {
        let own = || {
            let data = tempfile::tempdir().unwrap();
            (Server::start(data.path(), 0), data)
        };
        OWN.get_or_init(own).0.url.clone()
    })
}

/// A database of its own, that is not there yet.
pub struct Database {
    pub server: ClickHouse,
}

impl Database {
    pub fn new() -> Self {
        let mut database = Self::on(&shared_url());
        if let Ok(user) = std::env::var("CLICKHOUSE_USER") {
            database.server.user = user;
        }
        database.server.password = std::env::var("CLICKHOUSE_PASSWORD").ok().map(Secret::new);
        database
    }

    pub fn on(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let nanos = jiff::Timestamp::now().as_nanosecond() % 1_000_000_000_000;
        let server = ClickHouse {
            urls: vec![url.to_owned()],
            database: format!("t{}_{count}_{nanos}", std::process::id()),
            ..ClickHouse::default()
        };
        Self { server }
    }

    pub fn schema(&self) -> Schema<'_> {
        Schema::new(&self.server, &self.server.urls[0], false)
    }

    /// Runs SQL by hand, and returns the answer as tab-separated text.
    pub async fn try_sql(&self, sql: &str) -> Result<String, String> {
        let database = match sql.starts_with("DROP DATABASE") {
            true => "default",
            false => &self.server.database,
        };
        let request = reqwest::Client::new()
            .post(format!("{}/?database={database}", self.server.urls[0]))
            .header("X-ClickHouse-User", &self.server.user)
            .header(
                "X-ClickHouse-Key",
                self.server.password.as_ref().map_or("", Secret::expose),
            );
        let answer = request.body(sql.to_owned()).send().await.map_err(|e| e.to_string())?;
        let good = answer.status().is_success();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        if good {
            Ok(text.trim_end().to_owned())
        } else {
            Err(text)
        }
    }

    pub async fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Exchanges, different exchanges, and requests of the rollup.
    pub async fn counts(&self) -> (u64, u64, u64) {
        let table = self.sql("SELECT count(), uniqExact(exchange_id) FROM exchanges").await;
        let rollup = self.sql("SELECT sum(requests) FROM rollup_minute").await;
        let mut numbers = table.split('\t').map(|n| n.parse().unwrap());
        (
            numbers.next().unwrap(),
            numbers.next().unwrap(),
            rollup.parse().unwrap(),
        )
    }

    pub async fn drop(self) {
        self.sql(&format!("DROP DATABASE {}", self.server.database)).await;
    }

    /// Telemetry into this database, on the current runtime.
    pub fn telemetry(&self, spool: &Path) -> Telemetry {
        start(
            SinkOptions::ClickHouse {
                server: self.server.clone(),
                node: "node-1".to_owned(),
            },
            spool,
        )
    }
}

/// A file that keeps everything.
pub fn sqlite(path: &Path) -> Sqlite {
    Sqlite {
        path: path.to_owned(),
        ..Sqlite::default()
    }
}

/// Telemetry on the current runtime, with two workers.
pub fn start(sink: SinkOptions, spool: &Path) -> Telemetry {
    let options = TelemetryOptions {
        limits: promptgate::telemetry::SpoolLimits::default(),
        spool_dir: spool.to_owned(),
        seal_after: Duration::from_millis(20),
        sink,
        workers: 2,
        insert_duration: Metrics::new("test").sink_insert_duration_seconds.clone(),
    };
    Telemetry::start(options, Handle::current()).unwrap()
}

/// Runs `work` in a thread with a worker's recorder, then closes it.
pub fn on_worker(telemetry: &Telemetry, worker: usize, work: impl AsyncFnOnce(&Recorder) + Send) {
    let seed = telemetry.recorder_seed(worker);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            LocalSet::new().block_on(&runtime, async {
                let recorder = seed.into_recorder();
                work(&recorder).await;
                recorder.close().await;
            });
        });
    });
}

/// Records a range on a worker, in segments of a few rows each.
pub fn record_range(telemetry: &Telemetry, worker: usize, range: std::ops::Range<u64>) {
    on_worker(telemetry, worker, async |recorder| {
        for i in range {
            recorder.flushed(recorder.exchange(&record(i))).await;
            if i % 50 == 49 {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    });
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
