use super::*;
use sha2::{Digest, Sha256};

fn new_key(environments: &[&str]) -> NewKey {
    NewKey {
        name: "shop".to_owned(),
        environment: "production".to_owned(),
        environments: environments.iter().map(|&name| name.to_owned()).collect(),
        models: Some(vec!["gpt-4o-mini".to_owned()]),
        raw: true,
        pin: false,
        force_variant: true,
    }
}

#[tokio::test]
async fn key_is_stored_as_its_digest_and_revoked_once() {
    let registry = TestRegistry::new().await;
    let made = registry
        .create_key(new_key(&["staging", "production"]), "ada")
        .await
        .unwrap();
    let CreatedKey { key, secret } = made.value;
    assert!(key.id.starts_with("key_") && secret.starts_with("pg_"));
    assert_eq!(key.environments, ["production", "staging"]);

    let state = registry
        .changes_since(made.generation - 1)
        .await
        .unwrap()
        .keys
        .remove(0);
    let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    assert_eq!(state.digest, digest);
    assert_eq!(state.environments, key.environments);
    assert_eq!(state.models, Some(vec!["gpt-4o-mini".to_owned()]));
    assert_eq!(
        (state.raw, state.pin, state.force_variant, state.revoked),
        (true, false, true, false)
    );

    let revoked = registry.revoke_key(&key.id, "ada").await.unwrap();
    assert!(revoked.value.revoked_at_us.is_some());
    let delta = registry.changes_since(made.generation).await.unwrap();
    assert!(delta.keys[0].revoked);
    let again = registry.revoke_key(&key.id, "ada").await.unwrap();
    assert_eq!(again, revoked);
    assert_eq!(registry.generation().await.unwrap(), revoked.generation);

    if !registry.database.is_postgres() {
        let bytes = std::fs::read(registry.database.folder.path().join("data/registry.db-wal")).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn key_for_an_unknown_environment_or_without_a_name_is_refused() {
    let registry = TestRegistry::new().await;
    let refused = registry.create_key(new_key(&["moon"]), "ada").await;
    assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Environment(_)))));
    let nameless = NewKey {
        name: " ".to_owned(),
        ..new_key(&[])
    };
    let refused = registry.create_key(nameless, "ada").await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "name", .. })
    ));
    for id in ["key_nope", ""] {
        let refused = registry.revoke_key(id, "ada").await;
        assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Key(_)))));
    }
    assert_eq!(registry.list_keys(FIRST).await.unwrap().items, []);
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let registry = TestRegistry::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(registry.create_key(new_key(&[]), "ada").await.unwrap().value.key.id);
    }
    let first = registry.list_keys(PageOf { limit: 2, cursor: None }).await.unwrap();
    let cursor = first.next_cursor.unwrap();
    let rest = registry
        .list_keys(PageOf {
            limit: 2,
            cursor: Some(&cursor),
        })
        .await
        .unwrap();
    let listed: Vec<String> = [first.items, rest.items]
        .concat()
        .into_iter()
        .map(|key| key.id)
        .collect();
    assert_eq!(listed, ids);
    assert_eq!(rest.next_cursor, None);
}

#[tokio::test]
async fn admin_token_is_made_once_or_taken_as_given() {
    let registry = TestRegistry::new().await;
    let made = registry.ensure_admin_token(None).await.unwrap().unwrap();
    assert!(made.starts_with("pga_"));
    assert_eq!(registry.ensure_admin_token(None).await.unwrap(), None);
    let token = registry.authenticate_token(&made).await.unwrap().unwrap();
    assert_eq!((token.user.as_str(), token.token.as_str()), ("admin", "bootstrap"));

    for _ in 0..2 {
        assert_eq!(registry.ensure_admin_token(Some("given")).await.unwrap(), None);
    }
    assert!(registry.authenticate_token("given").await.unwrap().is_some());
    assert_eq!(registry.authenticate_token(&made).await.unwrap(), None, "replaced");
    assert_eq!(registry.authenticate_token("").await.unwrap(), None);
    let blank = registry.ensure_admin_token(Some(" ")).await;
    assert!(matches!(blank, Err(RegistryError::InvalidField { .. })));
    assert_eq!(
        registry
            .list_audit(&AuditFilter::default(), FIRST)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}
