use serde_json::json;

use super::*;
use crate::registry::{EnvironmentState, Mark};

fn content(text: &str) -> Arc<str> {
    let content: Content = serde_json::from_value(json!({ "text": text })).unwrap();
    serde_json::to_string(&content.normalise().unwrap()).unwrap().into()
}

fn state(id: &str, aliases: &[&str], deployment: u32, version: u32, text: &str) -> PromptState {
    let arm = split::Arm {
        variant: "control".into(),
        version,
        weight: 100.0,
    };
    let live = LiveState {
        environment: "production".into(),
        deployment,
        split: vec![arm],
        ever_deployed: vec![version],
        contents: vec![(version, content(text))],
    };
    PromptState {
        uid: format!("prm_{id}"),
        id: id.into(),
        salt_id: id.into(),
        aliases: aliases.iter().map(|alias| alias.to_string()).collect(),
        latest_version: version,
        live: vec![live],
    }
}

fn delta(generation: u64, prompts: Vec<PromptState>) -> Delta {
    Delta {
        whole: generation == 1,
        mark: Mark::start(),
        generation,
        epoch: "e".into(),
        pseudonym_key: "k".into(),
        environments: vec![EnvironmentState {
            name: "production".into(),
            protected: false,
        }],
        retired_names: Vec::new(),
        prompts,
        keys: Vec::new(),
    }
}

fn empty() -> Snapshot {
    Snapshot::empty(Arc::new(Routing::default()), "hash")
}

#[test]
fn change_of_one_prompt_shares_the_others() {
    let first = empty().with(delta(1, vec![state("a", &[], 1, 1, "x"), state("b", &[], 1, 1, "y")]));
    let second = first.with(delta(2, vec![state("a", &[], 2, 2, "z")]));
    assert_eq!((first.generation, second.generation), (1, 2));
    assert!(Arc::ptr_eq(first.prompt("b").unwrap(), second.prompt("b").unwrap()));
    assert_eq!(first.prompt("a").unwrap().live[0].arms[0].version, 1);
    assert_eq!(second.prompt("a").unwrap().live[0].arms[0].version, 2);
}

#[test]
fn version_that_stays_is_not_compiled_again() {
    let first = empty().with(delta(1, vec![state("a", &[], 1, 1, "x")]));
    let second = first.with(delta(2, vec![state("a", &[], 2, 1, "x")]));
    let compiled = |snapshot: &Snapshot| snapshot.prompt("a").unwrap().live[0].arms[0].compiled.clone().unwrap();
    assert!(Arc::ptr_eq(&compiled(&first), &compiled(&second)));
}

#[test]
fn alias_resolves_moves_and_disappears() {
    let first = empty().with(delta(
        1,
        vec![state("a", &["old", "x y"], 1, 1, "x"), state("b", &[], 1, 1, "y")],
    ));
    assert_eq!(&*first.prompt("x y").unwrap().id, "a");
    let mut moved = delta(2, vec![state("b", &["old"], 1, 1, "y"), state("a", &[], 1, 1, "x")]);
    moved.retired_names = vec!["old".into(), "x y".into()];
    let second = first.with(moved);
    assert_eq!(&*second.prompt("old").unwrap().id, "b");
    assert!(second.prompt("x y").is_none());
}

#[test]
fn version_that_does_not_compile_breaks_only_its_prompt() {
    let table = empty().with(delta(
        1,
        vec![state("a", &[], 1, 1, "{% if %}"), state("b", &[], 1, 1, "y")],
    ));
    assert!(table.prompt("a").unwrap().live[0].arms[0].compiled.is_err());
    assert!(table.prompt("b").unwrap().live[0].arms[0].compiled.is_ok());
}

/// A rename, the loss of the old name, and a new prompt of that name, all seen at once.
#[test]
fn renamed_prompt_keeps_versions_and_salt_and_shares_none_with_its_successor() {
    let first = empty().with(delta(1, vec![state("a", &["x"], 1, 1, "x")]));
    let mut renamed = state("b", &["x"], 1, 1, "x");
    (renamed.uid, renamed.salt_id) = ("prm_a".into(), "a".into());
    let mut successor = state("a", &[], 1, 1, "another");
    successor.uid = "prm_2".into();
    let mut change = delta(4, vec![renamed, successor]);
    change.retired_names = vec!["a".into()];
    let second = first.with(change);

    let live = |snapshot: &Snapshot, name: &str| Arc::clone(&snapshot.prompt(name).unwrap().live[0]);
    assert!(Arc::ptr_eq(&live(&first, "a"), &live(&second, "b")));
    assert!(Arc::ptr_eq(&live(&second, "x"), &live(&second, "b")));
    assert_eq!(&*live(&second, "b").salt, "a@production");
    assert!(!Arc::ptr_eq(&live(&first, "a"), &live(&second, "a")));
    assert_eq!(&*second.prompt("x").unwrap().id, "b");

    let mut gone = delta(5, Vec::new());
    gone.retired_names = vec!["x".into()];
    assert!(second.with(gone).prompt("x").is_none());
}
