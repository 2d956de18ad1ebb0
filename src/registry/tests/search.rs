//! Search in memory is the same as the registry, whatever changes and whoever changed it.

use super::*;

impl TestRegistry {
    async fn found(&self, query: &str) -> Vec<String> {
        let filter = PromptFilter {
            query: Some(query),
            ..PromptFilter::default()
        };
        self.listed(filter).await
    }

    /// All pages of two.
    async fn listed(&self, filter: PromptFilter<'_>) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let page = PageOf {
                limit: 2,
                cursor: cursor.as_deref(),
            };
            let page = self.list_prompts(filter, page).await.unwrap();
            ids.extend(page.items.into_iter().map(|item| item.prompt.id));
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return ids,
            }
        }
    }
}

#[tokio::test]
async fn search_sees_every_change_at_once() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a/one", 1).await;
    assert_eq!(registry.found("needle").await, [""; 0]);
    registry.version_of("a/one", "the NEEDLE").await;
    assert_eq!(registry.found("needle").await, ["a/one"]);
    registry.version_of("a/one", "nothing").await;
    assert_eq!(registry.found("needle").await, [""; 0], "neither latest nor live");
    registry.deploy("a/one", "staging", all_on(2), None, ADA).await.unwrap();
    assert_eq!(registry.found("needle").await, ["a/one"]);
    registry.rename_prompt("a/one", "b/one", ADA).await.unwrap();
    assert_eq!(registry.found("needle").await, ["b/one"]);
    registry.deploy("b/one", "staging", all_on(3), None, ADA).await.unwrap();
    assert_eq!(registry.found("needle").await, [""; 0]);

    registry.add_alias("b/one", "needle-alias", "ada").await.unwrap();
    assert_eq!(registry.found("needle").await, ["b/one"]);
    registry.remove_alias("b/one", "needle-alias", "ada").await.unwrap();
    assert_eq!(registry.found("needle").await, [""; 0]);
    let update = PromptUpdate {
        description: Some("a Needle in it".to_owned()),
        ..PromptUpdate::default()
    };
    registry.update_prompt("b/one", update, None, ADA).await.unwrap();
    assert_eq!(registry.found("NEEDLE").await, ["b/one"]);

    let filter = |archived| PromptFilter {
        query: Some("needle"),
        archived,
        ..PromptFilter::default()
    };
    registry.deploy("b/one", "staging", all_on(2), None, ADA).await.unwrap();
    registry
        .take_down("b/one", "staging", None, Glass::Whole, ADA)
        .await
        .unwrap();
    registry.archive_prompt("b/one", ADA).await.unwrap();
    assert_eq!(registry.listed(filter(Archived::Hidden)).await, [""; 0]);
    assert_eq!(registry.listed(filter(Archived::Included)).await, ["b/one"]);
    assert_eq!(registry.listed(filter(Archived::Only)).await, ["b/one"]);
    registry.restore_prompt("b/one", ADA).await.unwrap();
    assert_eq!(registry.listed(filter(Archived::Only)).await, [""; 0]);

    // Another node changes the same database.
    let other = registry.again().await.unwrap();
    other
        .create_version("b/one", text_content("needles"), ADA)
        .await
        .unwrap();
    assert_eq!(registry.found("needles").await, ["b/one"]);
}

#[tokio::test]
async fn search_goes_through_many_prompts_of_many_versions_in_order() {
    let registry = TestRegistry::new().await;
    for at in (0..11).rev() {
        let id = format!("{}/p{at:02}", if at % 2 == 0 { "even" } else { "odd/deep" });
        registry.prompt_with_versions(&id, at % 4).await;
        registry.version_of(&id, if at == 5 { "other" } else { "common" }).await;
    }
    let evens = ["even/p00", "even/p02", "even/p04", "even/p06", "even/p08", "even/p10"];
    let odds = ["odd/deep/p01", "odd/deep/p03", "odd/deep/p07", "odd/deep/p09"];
    assert_eq!(registry.found("Common").await, [&evens[..], &odds].concat());
    let folder = |folder, recursive| PromptFilter {
        query: Some("common"),
        folder: Some(folder),
        recursive,
        ..PromptFilter::default()
    };
    assert_eq!(registry.listed(folder("even", false)).await, evens);
    assert_eq!(registry.listed(folder("odd", false)).await, [""; 0]);
    assert_eq!(registry.listed(folder("odd/", true)).await, odds);
}

#[tokio::test]
async fn checkpoint_puts_the_log_into_the_file() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 3).await;
    let generation = registry.generation().await.unwrap();
    registry.checkpoint().await.unwrap();
    if registry.database.is_postgres() {
        return;
    }
    // The file without its log.
    let (from, copy) = (
        registry.database.folder.path().join("data/registry.db"),
        tempfile::tempdir().unwrap(),
    );
    std::fs::create_dir(copy.path().join("data")).unwrap();
    std::fs::copy(from, copy.path().join("data/registry.db")).unwrap();
    let copied = Registry::open(&format!("sqlite:{}", copy.path().join("data/registry.db").display()))
        .await
        .unwrap();
    assert_eq!(copied.generation().await.unwrap(), generation);
    assert_eq!(
        copied.changes_since(0).await.unwrap(),
        registry.changes_since(0).await.unwrap()
    );
}
