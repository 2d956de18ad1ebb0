//! Which exchanges: one filter, as SQL of either dialect. Values are bound, never written into the text.

use uuid::Uuid;

/// Which exchanges. What is None does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExchangeFilter {
    /// Earliest `started_at`, µs since the epoch.
    pub from: Option<i64>,
    /// First `started_at` that is too late.
    pub to: Option<i64>,
    pub prompt: Option<String>,
    pub version: Option<u32>,
    pub variant: Option<String>,
    pub environment: Option<String>,
    /// The model asked for.
    pub model: Option<String>,
    pub outcome: Option<String>,
    pub unit: Option<String>,
    /// Smallest `total_us`.
    pub min_latency_us: Option<u64>,
    pub min_cost_nanodollars: Option<u64>,
    /// Contained in variables, request or response as recorded; case matters.
    pub text: Option<String>,
}

/// A value for a question mark.
#[derive(Debug, Clone, PartialEq)]
pub enum Bind {
    Text(String),
    Int(i64),
    Id(Uuid),
}

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    ClickHouse,
}

impl Dialect {
    /// A bound time to compare `started_at` with.
    pub fn time(self) -> &'static str {
        match self {
            Self::Sqlite => "?",
            Self::ClickHouse => "fromUnixTimestamp64Micro(?, 'UTC')",
        }
    }

    fn contains(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("instr({column}, ?) > 0"),
            Self::ClickHouse => format!("position({column}, ?) > 0"),
        }
    }

    /// The exchange id, in a form that sorts by time: ClickHouse sorts a UUID by its second half.
    pub fn id_order(self) -> &'static str {
        match self {
            Self::Sqlite => "exchange_id",
            Self::ClickHouse => "UUIDToNum(exchange_id)",
        }
    }

    /// A bound id to compare [`Self::id_order`] with.
    fn id(self) -> &'static str {
        match self {
            Self::Sqlite => "?",
            Self::ClickHouse => "UUIDToNum(toUUID(?))",
        }
    }
}

/// SQL with values for its question marks.
#[derive(Debug, Clone)]
pub struct Sql {
    pub dialect: Dialect,
    pub text: String,
    pub binds: Vec<Bind>,
}

impl Sql {
    pub fn new(dialect: Dialect, text: impl Into<String>) -> Self {
        Self {
            dialect,
            text: text.into(),
            binds: Vec::new(),
        }
    }

    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub fn push_with(&mut self, text: &str, bind: Bind) -> &mut Self {
        self.text.push_str(text);
        self.binds.push(bind);
        self
    }

    /// Puts text around; what has question marks goes through [`Self::push_with`].
    pub fn wrap(mut self, before: &str, after: &str) -> Self {
        self.text = format!("{before}{}{after}", self.text);
        self
    }

    /// `WHERE` and all that the filter asks for.
    pub fn push_filter(&mut self, filter: &ExchangeFilter) -> &mut Self {
        let dialect = self.dialect;
        self.push(" WHERE TRUE");
        if let Some(from) = filter.from {
            self.push_with(&format!(" AND started_at >= {}", dialect.time()), Bind::Int(from));
            if dialect == Dialect::Sqlite {
                // Its indexes end with the id.
                self.push_with(" AND exchange_id >= ?", Bind::Id(first_id_at(from)));
            }
        }
        if let Some(to) = filter.to {
            self.push_with(&format!(" AND started_at < {}", dialect.time()), Bind::Int(to));
        }
        let texts = [
            ("prompt_id", &filter.prompt),
            ("variant", &filter.variant),
            ("environment", &filter.environment),
            ("model", &filter.model),
            ("outcome", &filter.outcome),
            ("unit", &filter.unit),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                self.push_with(&format!(" AND {column} = ?"), Bind::Text(text.clone()));
            }
        }
        if let Some(version) = filter.version {
            self.push_with(" AND version = ?", Bind::Int(version.into()));
        }
        let least = [
            ("total_us", filter.min_latency_us),
            ("cost_nanodollars", filter.min_cost_nanodollars),
        ];
        for (column, least) in least {
            if let Some(least) = least {
                let least = i64::try_from(least).unwrap_or(i64::MAX);
                self.push_with(&format!(" AND {column} >= ?"), Bind::Int(least));
            }
        }
        if let Some(text) = &filter.text {
            let columns = ["variables", "request", "response"];
            let any: Vec<String> = columns.iter().map(|column| dialect.contains(column)).collect();
            self.push(&format!(" AND ({})", any.join(" OR ")));
            self.binds.extend(columns.map(|_| Bind::Text(text.clone())));
        }
        self
    }

    /// Only what is older than this id.
    pub fn push_before(&mut self, before: Option<Uuid>) -> &mut Self {
        if let Some(id) = before {
            let text = format!(" AND {} < {}", self.dialect.id_order(), self.dialect.id());
            self.push_with(&text, Bind::Id(id));
        }
        self
    }

    /// Only what is not older than the first possible id of this time; see [`first_id_at`].
    pub fn push_since(&mut self, micros: i64) -> &mut Self {
        let text = format!(" AND {} >= {}", self.dialect.id_order(), self.dialect.id());
        self.push_with(&text, Bind::Id(first_id_at(micros)));
        // Two seconds before, not one: the id's time may differ from the record's by one in either direction.
        let text = format!(" AND started_at >= {}", self.dialect.time());
        self.push_with(&text, Bind::Int(micros - 2_000_000))
    }
}

/// The smallest UUIDv7 of a time: what comes before it need not be looked at. An id is made a little before or after
/// `started_at` is read, so a second is left.
pub fn first_id_at(micros: i64) -> Uuid {
    let millis = u64::try_from(micros / 1000).unwrap_or_default().saturating_sub(1000);
    Uuid::from_u64_pair(millis << 16, 0)
}

/// The time in a UUIDv7, µs since the epoch; None for an id of another kind.
pub fn time_of(id: Uuid) -> Option<i64> {
    (id.get_version_num() == 7).then(|| (id.as_u64_pair().0 >> 16) as i64 * 1000)
}
