use serde_json::json;

use super::*;
use crate::registry::EnvironmentState;

fn content(text: &str) -> Content {
    serde_json::from_value::<Content>(json!({ "text": text }))
        .unwrap()
        .normalise()
        .unwrap()
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
        id: id.into(),
        aliases: aliases.iter().map(|alias| alias.to_string()).collect(),
        latest_version: version,
        live: vec![live],
    }
}

fn delta(generation: u64, prompts: Vec<PromptState>) -> Delta {
    Delta {
        generation,
        epoch: "e".into(),
        environments: vec![EnvironmentState {
            name: "production".into(),
            protected: false,
        }],
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
    let second = first.with(delta(
        2,
        vec![state("b", &["old"], 1, 1, "y"), state("a", &[], 1, 1, "x")],
    ));
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
