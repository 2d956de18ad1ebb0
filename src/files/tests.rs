use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::node::Node;
use super::plan::{Action, Options, Plan, Problem, plan};
use super::prompt_file::{PromptFile, ReadFile};
use super::state::{LiveSplit, PromptState, State, VersionState};
use super::yaml;
use crate::domain::split::Arm;

const GREET: &str = r#"description: The first answer
owner: ada@example.com
tags: [support, "first: line"]
aliases: [pmpt_1]
deployments:
  staging: latest
  production:
    - {variant: control, version: production-control, weight: 80}
    - {variant: b, version: latest, weight: 20}
versions:
  production-control:
    messages:
      - role: system
        content: |
          Be brief.

            Be {{ mood }}.
      - {placeholder: history}
      - role: user
        content: "{{ question }}"
    variables:
      mood: {type: string, default: kind}
      question: {type: string, maxLength: 4000}
    model: gpt-4o-mini
    parameters: {temperature: 0.2, max_tokens: 400}
  latest:
    messages:
      - role: user
        content: "{{ question }}"
"#;

fn read(text: &str) -> ReadFile {
    ReadFile::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn files(texts: &[(&str, &str)]) -> BTreeMap<String, ReadFile> {
    texts.iter().map(|(id, text)| ((*id).to_owned(), read(text))).collect()
}

fn state(prompts: &[(&str, PromptState)]) -> State {
    State {
        environments: [("development", false), ("staging", false), ("production", true)]
            .map(|(name, protected)| (name.to_owned(), protected))
            .to_vec(),
        prompts: prompts
            .iter()
            .map(|(id, state)| ((*id).to_owned(), state.clone()))
            .collect(),
    }
}

/// What a registry would be after the plan for one prompt was carried out: its texts have no partials.
fn applied(mut known: PromptState, id: &str, plan: &Plan) -> PromptState {
    for todo in plan.prompts.iter().filter(|todo| todo.id == id) {
        for field in &todo.fields {
            let text = || field.to.as_str().unwrap_or_default().to_owned();
            match field.name {
                "description" => known.description = text(),
                "owner" => known.owner = text(),
                _ => known.tags = serde_json::from_value(field.to.clone()).unwrap(),
            }
        }
        known.aliases.extend(todo.aliases_added.iter().cloned());
        for new in &todo.versions {
            let effective = new.source.clone().normalise().unwrap();
            known.hashes.insert(effective.hash(), new.version);
            known.latest = new.version;
            let version = VersionState {
                source: new.source.clone(),
                effective,
                uses: Vec::new(),
            };
            known.versions.insert(new.version, version);
        }
        for deployment in &todo.deployments {
            known.live.retain(|live| live.environment != deployment.environment);
            known.live.push(LiveSplit {
                environment: deployment.environment.clone(),
                deployment: deployment.base + 1,
                split: deployment.to.clone(),
            });
        }
    }
    known
}

fn planned(texts: &[(&str, &str)], state: &State, options: &Options) -> Plan {
    plan(&files(texts), state, options).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(texts: &[(&str, &str)], state: &State) -> Vec<String> {
    let show = |(id, problem): Problem| {
        format!(
            "{id}:{}:{} {}: {}",
            problem.line, problem.column, problem.path, problem.message
        )
    };
    plan(&files(texts), state, &Options::default())
        .unwrap_err()
        .into_iter()
        .map(show)
        .collect()
}

#[test]
fn file_is_written_as_it_was_read() {
    assert_eq!(read(GREET).file.write(), GREET);
    assert_eq!(PromptFile::default().write(), "{}\n");
    assert_eq!(read("{}\n").file, PromptFile::default());
}

#[test]
fn every_problem_of_shape_comes_with_its_place() {
    let text = "descriptions: x\ntags: 7\ndeployments:\n  staging: newest\n  production:\n    - {variant: a, version: latest, weight: 50}\n\
                versions:\n  latest:\n    messages:\n      - {role: user, content: hi}\n    modle: x\n";
    let problems = ReadFile::parse(text).unwrap_err();
    let shown: Vec<String> = problems
        .iter()
        .map(|p| format!("{}:{} {}: {}", p.line, p.column, p.path, p.message))
        .collect();
    assert!(
        shown[0].starts_with("1:15 descriptions: \"descriptions\" is not known, did you mean \"description\"?"),
        "{shown:#?}"
    );
    assert!(shown[1].starts_with("2:7 tags: must be a list"), "{shown:#?}");
    assert!(
        shown[2].starts_with("6:5 deployments.production: the weights add up to 50"),
        "{shown:#?}"
    );
    assert!(
        shown[3].contains("versions.latest.modle: unknown field `modle`"),
        "{shown:#?}"
    );
    assert!(shown[3].starts_with("11:"), "{shown:#?}");
    let broken = ReadFile::parse("tags: [a\nowner: b\n").unwrap_err();
    assert!(broken[0].line > 0, "{broken:?}");
    let twice = ReadFile::parse("owner: a\nowner: b\n").unwrap_err();
    assert!(twice[0].message.contains("duplicate"), "{twice:?}");
}

#[test]
fn files_through_an_empty_registry_come_back_the_same() {
    let empty = state(&[]);
    let first = planned(&[("support/greet", GREET)], &empty, &Options::default());
    let todo = &first.prompts[0];
    assert_eq!(todo.action, Action::Create);
    assert_eq!(
        todo.versions.iter().map(|v| (v.version, v.base)).collect::<Vec<_>>(),
        [(1, None), (2, Some(1))]
    );
    assert!(
        todo.deployments[1].protected && todo.deployments[1].to[1].version == 2,
        "{:?}",
        todo.deployments
    );
    let known = applied(PromptState::default(), "support/greet", &first);
    assert_eq!(known.to_file(None).write(), GREET);
    let again = planned(
        &[("support/greet", GREET)],
        &state(&[("support/greet", known)]),
        &Options::default(),
    );
    assert!(again.is_empty() && again.prompts.is_empty(), "{again}");
}

#[test]
fn edited_text_is_a_new_version_and_moves_what_names_it() {
    let first = planned(&[("a", GREET)], &state(&[]), &Options::default());
    let known = state(&[("a", applied(PromptState::default(), "a", &first))]);
    let edited = GREET.replace(
        "        content: \"{{ question }}\"\n    variables",
        "        content: \"Q: {{ question }}\"\n    variables",
    );
    let todo = planned(&[("a", &edited)], &known, &Options::default());
    let text = todo.to_string();
    assert_eq!(todo.prompts[0].versions[0].version, 3);
    assert!(
        text.contains("version 3 (production-control): new, compared with 2"),
        "{text}"
    );
    assert!(
        text.contains("production: control=1:80, b=2:20 → control=3:80, b=2:20 (protected: proposed as a change)"),
        "{text}"
    );
    // Weights alone make no version.
    let moved = GREET
        .replace("weight: 80", "weight: 50")
        .replace("weight: 20", "weight: 50");
    let todo = planned(&[("a", &moved)], &known, &Options::default());
    assert!(todo.prompts[0].versions.is_empty());
    assert_eq!(todo.prompts[0].deployments.len(), 1);
}

#[test]
fn what_no_file_has_stays_unless_it_is_pruned() {
    let first = planned(&[("a", GREET)], &state(&[]), &Options::default());
    let known = applied(PromptState::default(), "a", &first);
    let known = state(&[("a", known), ("idle", PromptState::default())]);
    let less = GREET
        .replace("  staging: latest\n", "")
        .replace("aliases: [pmpt_1]\n", "");
    let todo = planned(&[("a", &less)], &known, &Options::default());
    assert!(todo.is_empty());
    assert_eq!(todo.without_file, ["idle"]);
    assert_eq!(todo.prompts[0].notes.len(), 2, "{todo}");
    let prune = Options {
        prune: true,
        ..Options::default()
    };
    let todo = planned(&[("a", &less)], &known, &prune);
    assert_eq!(todo.prompts[0].aliases_removed, ["pmpt_1"]);
    assert_eq!(todo.prompts[0].deployments[0].to, [] as [Arm; 0]);
    assert_eq!(
        (todo.prompts[1].id.as_str(), todo.prompts[1].action),
        ("idle", Action::Archive)
    );
    let elsewhere = Options {
        prune: true,
        environments: vec!["production".to_owned()],
        folder: "x/".to_owned(),
        ..Options::default()
    };
    let todo = planned(&[("a", &less)], &known, &elsewhere);
    assert!(
        todo.prompts
            .iter()
            .all(|todo| todo.deployments.is_empty() && todo.action != Action::Archive),
        "{todo}"
    );
}

const TONE: &str = "versions:\n  latest:\n    messages:\n      - role: user\n        content: Be kind.\n";
const HELLO: &str =
    "versions:\n  latest:\n    messages:\n      - role: user\n        content: \"{% include 'prompt:tone' %} Hi\"\n";

#[test]
fn partials_come_first_and_what_cannot_be_included_is_said() {
    let todo = planned(&[("a/hello", HELLO), ("tone", TONE)], &state(&[]), &Options::default());
    assert_eq!(todo.order, ["tone", "a/hello"]);
    let found = problems(&[("a/hello", HELLO)], &state(&[]));
    assert!(
        found[0].starts_with("a/hello:5:") && found[0].ends_with("the partial \"tone\" does not exist"),
        "{found:?}"
    );
    let back = TONE.replace("Be kind.", "\"{% include 'prompt:a/hello' %}\"");
    let found = problems(&[("a/hello", HELLO), ("tone", &back)], &state(&[]));
    assert!(
        found.iter().any(|problem| problem.contains("include each other")),
        "{found:?}"
    );
    let broken = HELLO
        .replace(" Hi", " {{ x|shout }}")
        .replace("prompt:tone", "prompt:nope");
    let wrong = TONE.replace("Be kind.", "\"{{ x|shout }}\"");
    let found = problems(&[("a/hello", &broken), ("tone", &wrong)], &state(&[]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[1].starts_with("tone:5:18 versions.latest.messages[0].content: "),
        "{found:?}"
    );
}

#[test]
fn newer_partial_is_only_taken_when_asked_for() {
    let first = planned(&[("hello", HELLO), ("tone", TONE)], &state(&[]), &Options::default());
    let mut hello = applied(PromptState::default(), "hello", &first);
    hello.versions.get_mut(&1).unwrap().uses = vec![("tone".to_owned(), 1)];
    let known = state(&[
        ("hello", hello),
        ("tone", applied(PromptState::default(), "tone", &first)),
    ]);
    assert!(
        planned(&[("hello", HELLO), ("tone", TONE)], &known, &Options::default())
            .prompts
            .is_empty()
    );
    let kinder = TONE.replace("kind", "kinder");
    let todo = planned(&[("hello", HELLO), ("tone", &kinder)], &known, &Options::default());
    assert_eq!(todo.order, ["tone"]);
    assert!(todo.to_string().contains("--refresh-partials"), "{todo}");
    let refresh = Options {
        refresh_partials: true,
        ..Options::default()
    };
    let todo = planned(&[("hello", HELLO), ("tone", &kinder)], &known, &refresh);
    assert_eq!(todo.order, ["tone", "hello"]);
    assert!(todo.to_string().contains("prompt:tone:2"), "{todo}");
}

#[test]
fn names_that_are_taken_and_places_that_are_not_there_are_refused() {
    let owner = PromptState {
        aliases: vec!["old".to_owned(), "pmpt_1".to_owned()],
        ..PromptState::default()
    };
    let known = state(&[("new", owner)]);
    let found = problems(
        &[
            ("old", "{}"),
            ("a", GREET),
            ("b", "deployments: {nowhere: v}\nversions: {v: {text: hi}}\n"),
        ],
        &known,
    );
    assert!(
        found.iter().any(|p| p.contains("rename the file to new.yaml")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|p| p.starts_with("a:4:") && p.contains("\"pmpt_1\" names prompt \"new\" already")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|p| p.starts_with("b:1:") && p.contains("there are development, staging, production")),
        "{found:?}"
    );
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\n]{0,40}",
        "( |#|-|:|\n|\t|a|\\{|\"|'|\u{e9}|\u{2028}|~|0|1|e){0,12}",
        "(true|Yes|null|~|1e3|0x1f|1_000|-|---|\\.\\.\\.|2026-01-01|!!str|&a|\\*a|\\?|=|<<)",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e15f64..1e15).prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any_text(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn yaml_is_read_back_to_the_last_byte(value in any_value()) {
        let fields = Map::from_iter([("messages".to_owned(), json!([{"role": "user", "content": value.clone()}])), ("x".to_owned(), value)]);
        let text = yaml::document(&fields, &["messages"]);
        let back = Node::parse(&text).map_err(|why| TestCaseError::fail(format!("{why:?}\n{text}")))?;
        prop_assert_eq!(back.value().to_string(), Value::Object(fields).to_string(), "{}", text);
    }
}
