//! The registry on a temporary database, see [`testing`].

mod audit;
mod deployments;
mod drafts;
mod dump;
mod environments;
mod follow;
mod golive;
mod keys;
mod library;
mod names;
mod prompts;
mod search;
mod shifts;
mod upgrade;
mod uses;
mod versions;

use super::testing::TestDatabase;
use super::*;
use crate::domain::content::Content;
use crate::domain::role::{Grant, Role};
use crate::domain::split::Arm;
use serde_json::{Value, json};

const ADA: By<'static> = By {
    actor: Actor::named("ada"),
    message: "why",
};

const FIRST: PageOf<'static> = PageOf {
    limit: 50,
    cursor: None,
};

/// A registry that vanishes with its database.
struct TestRegistry {
    registry: Registry,
    database: TestDatabase,
}

impl std::ops::Deref for TestRegistry {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl TestRegistry {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let registry = Registry::open(&database.url).await.unwrap();
        Self { registry, database }
    }

    /// Opens the same database once more.
    async fn again(&self) -> Result<Registry, RegistryError> {
        Registry::open(&self.database.url).await
    }

    async fn prompt_with_versions(&self, id: &str, versions: u32) {
        let new = NewPrompt {
            id: id.to_owned(),
            ..NewPrompt::default()
        };
        self.create_prompt(new, "ada").await.unwrap();
        for version in 1..=versions {
            let made = self.version_of(id, &format!("{id} {version}")).await;
            assert_eq!(made.value.version, version);
        }
    }

    async fn version_of(&self, id: &str, template: &str) -> Published<VersionSummary> {
        self.create_version(id, text_content(template), ADA).await.unwrap()
    }

    async fn problems_of(&self, id: &str, content: Content) -> Vec<Problem> {
        match self.create_version(id, content, ADA).await {
            Err(RegistryError::Invalid(problems)) => problems,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

fn text_content(template: &str) -> Content {
    content(json!({"messages": [{"role": "user", "content": template}]}))
}

fn arm(variant: &str, version: u32, weight: f64) -> Arm {
    Arm {
        variant: variant.to_owned(),
        version,
        weight,
    }
}

fn all_on(version: u32) -> Vec<Arm> {
    vec![arm("control", version, 100.0)]
}

#[tokio::test]
async fn reopening_keeps_everything_and_migrates_nothing() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 1).await;
    let before = registry.changes_since(0).await.unwrap();
    registry.close().await;
    let again = registry.again().await.unwrap();
    assert_eq!(again.changes_since(0).await.unwrap(), before);
    assert_eq!(again.generation().await.unwrap(), 3);
}

#[tokio::test]
async fn newer_schema_is_fine_unless_it_needs_a_newer_program() {
    let registry = TestRegistry::new().await;
    let future = |number: u32, needs: u32| {
        format!("INSERT INTO migrations (number, name, applied_at, needs) VALUES ({number}, 'future', 0, {needs})")
    };
    registry.execute_for_tests(future(998, 0)).await;
    let beside = registry.again().await.unwrap();
    beside.set_protected("staging", true, "ada").await.unwrap();
    let reader = Registry::open_read_only(&registry.database.url).await.unwrap();
    assert_eq!(reader.generation().await.unwrap(), 2);
    registry.execute_for_tests(future(999, 900)).await;
    let refused = [
        registry.again().await.unwrap_err(),
        Registry::open_read_only(&registry.database.url).await.unwrap_err(),
    ];
    for error in refused {
        assert!(error.to_string().contains("less than schema 900 cannot use"), "{error}");
        assert!(error.to_string().contains("use a newer promptgate"), "{error}");
    }
}

#[tokio::test]
async fn opening_anything_but_a_file_or_postgres_is_refused() {
    for url in ["mysql://localhost/x", "sqlite::memory:", "data/registry.db"] {
        assert!(
            matches!(Registry::open(url).await, Err(RegistryError::InvalidField { .. })),
            "{url}"
        );
    }
}

#[tokio::test]
async fn two_processes_that_start_together_both_open() {
    let database = TestDatabase::new().await;
    let url = database.url.clone();
    let (one, two) = tokio::join!(Registry::open(&url), Registry::open(&url));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.changes_since(0).await.unwrap(), two.changes_since(0).await.unwrap());
}

#[tokio::test]
async fn environments_are_seeded_protected_and_added_in_order() {
    let registry = TestRegistry::new().await;
    let protected = registry.set_protected("production", true, "ada").await.unwrap();
    assert!(protected.value.protected);
    registry.set_protected("canary", false, "ada").await.unwrap();
    let delta = registry.changes_since(protected.generation + 1).await.unwrap();
    let seen: Vec<(&str, bool)> = delta
        .environments
        .iter()
        .map(|e| (e.name.as_str(), e.protected))
        .collect();
    assert_eq!(
        seen,
        [
            ("development", false),
            ("staging", false),
            ("production", true),
            ("canary", false)
        ]
    );
    assert_eq!(delta.generation, protected.generation + 1);
    let error = registry.set_protected("No Spaces", true, "ada").await.unwrap_err();
    assert!(matches!(error, RegistryError::InvalidField { field: "name", .. }));
    assert_eq!(
        registry.generation().await.unwrap(),
        delta.generation,
        "a refusal makes no generation"
    );
}

#[tokio::test]
async fn every_change_leaves_one_audit_row() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 2).await;
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    registry.deploy("a", "production", all_on(2), None, ADA).await.unwrap();
    registry.rollback("a", "production", None, ADA).await.unwrap();
    registry.add_alias("a", "old", "ada").await.unwrap();
    registry.remove_alias("a", "old", "ada").await.unwrap();
    registry
        .deploy("a", "production", all_on(9), None, ADA)
        .await
        .unwrap_err();
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    let seen: Vec<(&str, &str)> = log.iter().map(|e| (e.action.as_str(), e.subject.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("alias.remove", "a"),
            ("alias.add", "a"),
            ("deployment.rollback", "a@production"),
            ("deployment.deploy", "a@production"),
            ("deployment.deploy", "a@production"),
            ("version.create", "a:2"),
            ("version.create", "a:1"),
            ("prompt.create", "a"),
        ]
    );
    assert_eq!(log[3].detail["from"]["deployment"], 1);
    assert_eq!(log[3].detail["to"]["split"][0]["version"], 2);
    assert_eq!(log[3].detail["message"], "why");
    let page = PageOf { limit: 3, cursor: None };
    let first = registry.list_audit(&AuditFilter::default(), page).await.unwrap();
    let cursor = first.next_cursor.unwrap();
    let page = PageOf {
        limit: 10,
        cursor: Some(&cursor),
    };
    let rest = registry.list_audit(&AuditFilter::default(), page).await.unwrap();
    assert_eq!([first.items, rest.items].concat(), log);
    assert_eq!(rest.next_cursor, None);
}

impl Registry {
    /// Lets every token with or without an end have ended.
    pub(crate) async fn expire_tokens_for_tests(&self) {
        sqlx::query("UPDATE tokens SET expires_at = 1")
            .execute(self.writer().unwrap())
            .await
            .unwrap();
    }

    /// Lets statements fail: `INSERT ON live`, where `NEW.number = 2`.
    pub(crate) async fn fail_for_tests(&self, event: &str, condition: &str) {
        let trigger = match self.pools().unwrap().engine {
            sql::Engine::Sqlite => format!(
                "CREATE TRIGGER broken_for_tests BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'broken'); END"
            ),
            sql::Engine::Postgres => format!(
                "CREATE FUNCTION broken_for_tests() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; \
                 END $$; CREATE TRIGGER broken_for_tests BEFORE {event} FOR EACH ROW WHEN ({condition}) \
                 EXECUTE FUNCTION broken_for_tests()"
            ),
        };
        self.execute_for_tests(trigger).await;
    }

    pub(crate) async fn heal_for_tests(&self) {
        let drop = match self.pools().unwrap().engine {
            sql::Engine::Sqlite => "DROP TRIGGER broken_for_tests",
            sql::Engine::Postgres => "DROP FUNCTION broken_for_tests CASCADE",
        };
        self.execute_for_tests(drop.to_owned()).await;
    }

    pub(crate) async fn execute_for_tests(&self, statements: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(self.writer().unwrap())
            .await
            .unwrap();
    }
}
