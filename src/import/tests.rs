use serde_json::{Value, json};

use super::handlebars::{Piece, convert};
use super::text::{fstring, mustache};
use super::*;

fn one(system: System, files: &[(&str, &str)]) -> Imported {
    let sources: Vec<Source<'_>> = files.iter().map(|(path, text)| Source { path, text }).collect();
    import(system, &sources)
}

fn prompt<'a>(imported: &'a Imported, id: &str) -> &'a Prompt {
    let found = imported.prompts.iter().find(|prompt| prompt.id == id);
    found.unwrap_or_else(|| panic!("no {id} in {:#?}", imported.prompts))
}

fn messages(version: &Version) -> Value {
    json!(version.content.clone().normalise().unwrap().messages)
}

/// Renders a template of ours, as requests do.
fn rendered(text: &str, values: Value) -> String {
    let mut engine = minijinja::Environment::new();
    engine.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
    engine
        .render_str(text, minijinja::value::Serde(values))
        .unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn any_name_becomes_an_id() {
    for (name, id) in [
        ("movie-critic", "movie-critic"),
        ("Support/Greeting v2!", "support/greeting-v2"),
        ("pmpt_68a1B", "pmpt_68a1b"),
        ("ä/versions", "versions-prompt"),
        ("a/diff", "a/diff-prompt"),
        ("--", "imported"),
        ("Über uns", "ber-uns"),
    ] {
        assert_eq!(prompt_id(name), id, "{name}");
        assert_eq!(crate::domain::prompt::validate_prompt_id(&prompt_id(name)), Ok(()));
    }
    let long = prompt_id(&"abcdefghij/".repeat(40));
    assert_eq!(crate::domain::prompt::validate_prompt_id(&long), Ok(()));
}

#[test]
fn text_that_looks_like_a_tag_comes_out_as_it_was() {
    for text in [
        "{{{name}}}",
        "{% if x %}{#",
        "{{ }} {{#a}} { {{name}} }",
        "a {",
        "{{name",
        "{{{{name}}}}",
        "{\"a\": {{name}}}",
    ] {
        let mut notes = Vec::new();
        let expected = text.replace("{{name}}", "Ada");
        assert_eq!(
            rendered(&mustache(text, &mut notes), json!({"name": "Ada"})),
            expected,
            "{text}"
        );
    }
    let mut notes = Vec::new();
    let text = fstring("{{\"a\": {name}, \"b\": {x:.2f}}} {{% {user.first} {{{{", &mut notes);
    let values = json!({"name": "Ada", "x": 1.5, "user": {"first": "A"}});
    assert_eq!(rendered(&text, values), "{\"a\": Ada, \"b\": 1.5} {% A {{");
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn variable_names_that_we_cannot_have_are_changed_and_said() {
    let mut notes = Vec::new();
    assert_eq!(
        mustache("{{user-name}} {{ a.b }} {{ok}}", &mut notes),
        "{{ user_name }} {{ a_b }} {{ ok }}"
    );
    assert_eq!(notes.len(), 2);
}

/// As Langfuse's data model and placeholders pages show prompts.
const LANGFUSE: &str = r#"[
  {"name": "movie-critic", "type": "text", "prompt": "As a {{criticLevel}} movie critic, do you like {{movie}}?",
   "config": {"model": "gpt-4o", "temperature": 0.5, "supported_languages": ["en", "fr"]},
   "version": 2, "labels": ["production", "latest"], "tags": ["movies"], "commitMessage": "level"},
  {"name": "movie-critic", "type": "text", "prompt": "Do you like {{movie}}?", "config": {}, "version": 1, "labels": [], "tags": ["movies"]},
  {"name": "Movie Chat", "type": "chat", "version": 1, "labels": ["production"], "tags": [], "config": {"maxTokens": 9}, "prompt": [
    {"type": "chatmessage", "role": "system", "content": "@@@langfusePrompt:name=movie-critic|label=production@@@ Be an {{criticlevel}} critic"},
    {"type": "placeholder", "name": "chat_history"},
    {"role": "user", "content": "What should I watch next?"}]}
]"#;

#[test]
fn langfuse_prompts_are_carried_with_their_history() {
    let imported = one(System::Langfuse, &[("prompts.json", LANGFUSE)]);
    let critic = prompt(&imported, "movie-critic");
    assert_eq!(
        critic.versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert_eq!(critic.versions[1].message, "level");
    assert_eq!(critic.versions[1].content.parameters["temperature"], 0.5);
    assert_eq!(critic.versions[1].content.model.as_deref(), Some("gpt-4o"));
    assert_eq!(
        critic.notes,
        ["version 2: config.supported_languages is no generation parameter: left out"]
    );
    let chat = prompt(&imported, "movie-chat");
    assert_eq!(chat.aliases, ["Movie Chat"]);
    assert_eq!(
        messages(&chat.versions[0]),
        json!([
            {"role": "system", "content": "{% include \"prompt:movie-critic\" %} Be an {{ criticlevel }} critic"},
            {"placeholder": "chat_history"},
            {"role": "user", "content": "What should I watch next?"},
        ])
    );
    assert!(chat.notes[0].contains("label=production"), "{:?}", chat.notes);
    let files = imported.files(&[("production".to_owned(), "staging".to_owned())]);
    assert_eq!(files["movie-critic"].deployments[0].1[0].version, "v2");
    let list = one(
        System::Langfuse,
        &[(
            "list.json",
            r#"{"data": [{"name": "a", "versions": [1, 2], "labels": []}], "meta": {}}"#,
        )],
    );
    assert!(prompt(&list, "a").notes[0].contains("[1,2]"), "{list:?}");
}

/// As PromptLayer's reference shows a raw template and a page of them.
const PROMPTLAYER: &str = r#"{"has_next": false, "items": [
  {"id": 17, "prompt_name": "support-response", "version": 2, "prompt_template": {"type": "chat", "messages": [
      {"role": "system", "content": [{"type": "text", "text": "You help {company}. JSON: {{}}"}], "input_variables": ["company"]},
      {"role": "placeholder", "name": "fill_in_message"},
      {"role": "user", "content": [{"type": "text", "text": "{user_message}"}]}],
      "template_format": "f-string", "functions": [{"name": "look_up", "description": "d", "parameters": {"type": "object"}}], "function_call": "auto"},
   "metadata": {"model": {"provider": "openai", "name": "gpt-4o", "parameters": {"temperature": 0.2, "maxOutputTokens": 9}}, "customField": "x"},
   "commit_message": "Improve support tone", "tags": ["support"], "release_labels": ["prod"]},
  {"id": 18, "prompt_name": "Poet", "version": 1, "prompt_template": {"type": "completion", "template_format": "jinja2",
   "content": [{"type": "text", "text": "{% if topic %}@@@tone@@@ {{ topic }}{% endif %}"}], "input_variables": ["topic"]}},
  {"id": 19, "prompt_name": "broken", "version": 1, "prompt_template": {"type": "completion", "template_format": "jinja2",
   "content": [{"type": "text", "text": "{{ x|shout }}"}]}}
], "page": 1}"#;

#[test]
fn promptlayer_templates_are_carried_in_both_formats() {
    let imported = one(System::PromptLayer, &[("page.json", PROMPTLAYER)]);
    let support = prompt(&imported, "support-response");
    let version = &support.versions[0];
    assert_eq!(messages(version)[1], json!({"placeholder": "fill_in_message"}));
    assert_eq!(
        rendered(
            version.content.messages[0]["content"].as_str().unwrap(),
            json!({"company": "Acme"})
        ),
        "You help Acme. JSON: {}"
    );
    assert_eq!(version.content.tools[0]["function"]["name"], "look_up");
    assert_eq!(version.content.parameters["max_tokens"], 9);
    assert_eq!(
        (version.message.as_str(), version.labels.as_slice()),
        ("Improve support tone", &["prod".to_owned()][..])
    );
    assert_eq!(support.aliases, ["17"]);
    assert_eq!(support.notes, ["version 2: metadata.customField is left out"]);
    let poet = prompt(&imported, "poet");
    assert_eq!(
        poet.versions[0].content.messages[0]["content"],
        "{% if topic %}{% include \"prompt:tone\" %} {{ topic }}{% endif %}"
    );
    let broken = prompt(&imported, "broken");
    assert!(
        broken.versions.is_empty() && broken.notes[0].contains("shout"),
        "{:?}",
        broken.notes
    );
}

/// As Helicone's reference shows versions, with a body as its prompts overview describes them.
const HELICONE: &str = r#"{"data": [
  {"id": "v2", "prompt_id": "abc123", "model": "gpt-4o", "major_version": 2, "minor_version": 0, "commit_message": "rewrite",
   "environments": ["production"], "prompt_body": {"model": "gpt-4o", "temperature": 0.6, "response_format": {"type": "json_object"}, "messages": [
     {"role": "system", "content": "You are an assistant of {{hc:company:string}}. {{hcp:other:0}}"},
     {"role": "user", "content": [{"type": "text", "text": "I am {{hc:age:number}}, {{hc:vip:boolean}}"}]}]}},
  {"id": "v1", "prompt_id": "abc123", "model": "gpt-4o", "major_version": 1, "minor_version": 0, "commit_message": "first", "s3_url": "https://…"}
], "error": null}
"#;

#[test]
fn helicone_versions_are_carried_with_typed_variables() {
    let about = r#"{"data": [{"id": "abc123", "name": "Customer Support", "tags": ["a"]}]}"#;
    let imported = one(
        System::Helicone,
        &[("versions.json", HELICONE), ("prompts.json", about)],
    );
    let support = prompt(&imported, "customer-support");
    assert_eq!(
        (support.aliases.as_slice(), support.tags.as_slice()),
        (&["abc123".to_owned()][..], &["a".to_owned()][..])
    );
    let version = &support.versions[0];
    assert_eq!(
        (version.name.as_str(), version.labels[0].as_str()),
        ("2.0", "production")
    );
    let variables = json!({"age": {"type": "number"}, "company": {"type": "string"}, "vip": {"type": "boolean"}});
    assert_eq!(json!(version.content.variables), variables);
    assert_eq!(
        version.content.messages[1]["content"][0]["text"],
        "I am {{ age }}, {{ vip }}"
    );
    assert_eq!(support.notes.len(), 2, "{:?}", support.notes);
    assert_eq!(
        imported.files(&[("production".to_owned(), "production".to_owned())])["customer-support"].versions[0].0,
        "v2.0"
    );
}

const OPENAI: &str = r#"{"object": "list", "data": [
  {"id": "pmpt_68A1", "object": "prompt", "version": "2", "name": "Local weather", "is_default": true, "model": "gpt-5.1",
   "instructions": "You know {{city}}.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Weather in {{city}}?"}]}],
   "tools": [{"type": "function", "name": "look", "parameters": {}}, {"type": "web_search"}], "temperature": 1, "max_output_tokens": 50,
   "text": {"format": {"type": "json_schema", "name": "w", "schema": {"type": "object"}, "strict": true}}, "reasoning": {"effort": "low", "summary": "auto"},
   "variables": {"city": "San Francisco"}},
  {"id": "pmpt_68A1", "version": "1", "name": "Local weather", "messages": [{"role": "developer", "content": "Weather of {{city}}"}]}
]}"#;

#[test]
fn openai_prompts_keep_their_ids_as_aliases() {
    let imported = one(System::OpenAi, &[("prompts.json", OPENAI)]);
    let weather = prompt(&imported, "local-weather");
    assert_eq!(weather.aliases, ["pmpt_68A1"]);
    let newest = &weather.versions[1];
    assert_eq!(
        messages(newest),
        json!([{"role": "developer", "content": "You know {{ city }}."}, {"role": "user", "content": "Weather in {{ city }}?"}])
    );
    assert_eq!(
        newest.content.response_format.as_ref().unwrap()["json_schema"]["strict"],
        true
    );
    assert_eq!(newest.content.parameters["reasoning_effort"], "low");
    assert_eq!(newest.content.tools.len(), 1);
    assert_eq!(weather.notes.len(), 2, "{:?}", weather.notes);
    assert_eq!(
        imported.files(&[("default".to_owned(), "production".to_owned())])["local-weather"].deployments[0].1[0].version,
        "v2"
    );
}

const TENSORZERO: &str = r#"
[models.my_model]
routing = ["openai"]
[tools.look_up]
description = "looks"
parameters = "tools/look_up.json"
[functions.draft_email]
type = "chat"
system_schema = "functions/draft_email/system_schema.json"
tools = ["look_up"]
tool_choice = "auto"
[functions.draft_email.variants.gpt_5_mini]
type = "chat_completion"
model = "openai::gpt-5-mini"
weight = 0.9
system_template = "functions/draft_email/system.minijinja"
user_template = "functions/draft_email/user.minijinja"
temperature = 0.5
retries = { num_retries = 2 }
[functions.draft_email.variants.haiku]
type = "chat_completion"
model = "anthropic::claude-haiku-4-5"
weight = 0.1
templates.system.path = "functions/draft_email/system.minijinja"
[functions.draft_email.variants.best]
type = "experimental_best_of_n_sampling"
[functions.plain]
type = "json"
output_schema = "functions/out.json"
[functions.plain.variants.a]
type = "chat_completion"
model = "m"
json_mode = "strict"
system_template = "functions/draft_email/system.minijinja"
[functions.plain.variants.b]
type = "chat_completion"
model = "m"
user_template = "nowhere.minijinja"
"#;

#[test]
fn tensorzero_functions_become_prompts_with_splits() {
    let imported = one(
        System::TensorZero,
        &[
            ("config/tensorzero.toml", TENSORZERO),
            (
                "config/functions/draft_email/system.minijinja",
                "Write as {{ tone }}.{% if cc %} Copy {{ cc }}.{% endif %}\n",
            ),
            ("config/functions/draft_email/user.minijinja", "{{ request }}"),
            (
                "config/functions/draft_email/system_schema.json",
                r#"{"type": "object", "properties": {"tone": {"type": "string"}, "cc": {"type": "string"}, "request": {}}, "required": ["tone", "request"]}"#,
            ),
            ("config/tools/look_up.json", r#"{"type": "object"}"#),
            ("config/functions/out.json", r#"{"type": "object"}"#),
        ],
    );
    let draft = prompt(&imported, "draft_email");
    assert_eq!(draft.versions.len(), 2, "{draft:#?}");
    assert_eq!(draft.versions[0].content.model.as_deref(), Some("gpt-5-mini"));
    assert_eq!(
        draft.versions[0].content.variables.as_ref().unwrap()["cc"]["optional"],
        true
    );
    assert_eq!(draft.versions[0].content.tools[0]["function"]["name"], "look_up");
    let arms: Vec<(&str, f64)> = draft.splits[tensorzero::WEIGHTS]
        .iter()
        .map(|arm| (arm.variant.as_str(), arm.weight))
        .collect();
    assert_eq!(arms, [("gpt_5_mini", 90.0), ("haiku", 10.0)]);
    for part in [
        "best is left out",
        "retries is left out",
        "model \"openai::gpt-5-mini\" is \"gpt-5-mini\"",
    ] {
        assert!(
            draft.notes.iter().any(|note| note.contains(part)),
            "{part}: {:?}",
            draft.notes
        );
    }
    let plain = prompt(&imported, "plain");
    assert_eq!(
        plain.versions[0].content.response_format.as_ref().unwrap()["json_schema"]["strict"],
        true
    );
    assert!(
        plain.notes.iter().any(|note| note.contains("nowhere.minijinja")),
        "{:?}",
        plain.notes
    );
    assert!(
        imported.notes[0].starts_with("[models] is configuration"),
        "{:?}",
        imported.notes
    );
    let files = imported.files(&[("weights".to_owned(), "production".to_owned())]);
    assert_eq!(files["draft_email"].deployments[0].1[1].weight, 10.0);
}

/// As dotprompt's reference shows a head.
const GREETING: &str = r#"---
name: greetingPrompt
model: googleai/gemini-1.5-flash
config:
  temperature: 0.7
  topK: 20
  stopSequences: [STOP]
  version: x
input:
  default: {name: Guest}
  schema:
    name: string
    language?: string, what to speak
    style(enum, how): [formal, casual]
    items?(array): string
output:
  format: json
  schema:
    greeting: string, the greeting
tools: [timeOfDay]
metadata: {a: 1}
---
{{! what it is }}
{{role "system"}}
{{>tone}} You greet {{name}}{{#if language}} in {{language}}{{else}} anyhow{{/if}}.
{{#each items as |thing|}}
- {{thing}}
{{/each}}
{{history}}
{{role "model"}}
Hello!
{{role "user"}}
Look: {{media url=picture}}
"#;

#[test]
fn dotprompt_files_become_chats() {
    let imported = one(
        System::Dotprompt,
        &[
            ("a/greeting.prompt", GREETING),
            ("_tone.prompt", "Be {{mood}}."),
            ("odd.prompt", "{{#if a}}{{role \"model\"}}{{/if}}"),
            ("README.md", "x"),
        ],
    );
    let greeting = prompt(&imported, "a/greeting");
    assert_eq!(greeting.aliases, ["greetingPrompt"]);
    let content = &greeting.versions[0].content;
    assert_eq!(
        content.parameters,
        *json!({"temperature": 0.7, "top_k": 20, "stop": ["STOP"]})
            .as_object()
            .unwrap()
    );
    assert_eq!(
        json!(content.messages),
        json!([
            {"role": "system", "content": "{% include \"prompt:tone\" %} You greet {{ name }}{% if language %} in {{ language }}{% else %} anyhow{% endif %}.\n\
             {% for thing in items %}- {{ thing }}\n{% endfor %}"},
            {"placeholder": "history"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "{{ picture }}"}}]},
        ])
    );
    let variables = content.variables.as_ref().unwrap();
    assert_eq!(variables["name"], json!({"type": "string", "default": "Guest"}));
    assert_eq!(
        variables["language"],
        json!({"type": "string", "description": "what to speak", "optional": true})
    );
    assert_eq!(
        variables["style"],
        json!({"enum": ["formal", "casual"], "description": "how"})
    );
    assert_eq!(
        content.response_format.as_ref().unwrap()["json_schema"]["schema"]["required"],
        json!(["greeting"])
    );
    assert_eq!(greeting.notes.len(), 3, "{:?}", greeting.notes);
    assert!(prompt(&imported, "tone").aliases.is_empty());
    assert!(
        prompt(&imported, "odd").notes[0].contains("inside of {{#if}}"),
        "{:?}",
        prompt(&imported, "odd")
    );
}

#[test]
fn handlebars_means_the_same_as_jinja() {
    let values = json!({
        "user": {"name": "Ada", "tags": ["x", "y"]}, "items": [{"n": 1, "ok": true}, {"n": 2}], "empty": [], "who": "W", "kind": "a",
    });
    for (source, expected) in [
        ("{{user.name}} {{{who}}} {{~ who ~}} !", "Ada WW!"),
        (
            "{{#each items}}{{@index}}:{{n}}{{#if ok}}+{{/if}}{{../who}}{{#unless @last}},{{/unless}}{{/each}}",
            "0:1+W,1:2W",
        ),
        ("{{#each empty}}x{{else}}none{{/each}}", "none"),
        (
            "{{#with user}}{{name}}{{#each tags}}[{{this}}]{{/each}}{{/with}}",
            "Ada[x][y]",
        ),
        (
            "{{#ifEquals kind \"a\"}}A{{else}}B{{/ifEquals}}{{#unlessEquals kind 'a'}}C{{/unlessEquals}}",
            "A",
        ),
        ("{{#if none.deep}}x{{else if who}}y{{/if}}", "y"),
        ("a\n  {{#if who}}\n  b\n  {{/if}}\nc", "a\n  b\nc"),
        ("\\{{who}} {{!-- no }} --}}{% raw %} {#", "{{who}} {% raw %} {#"),
        ("{{user.tags.0}}", "x"),
        ("{{json user}}", "{\"name\": \"Ada\", \"tags\": [\"x\", \"y\"]}"),
    ] {
        let mut notes = Vec::new();
        let pieces = convert(source, prompt_id, &mut notes).unwrap_or_else(|why| panic!("{why}: {source}"));
        let [Piece::Text(text)] = pieces.as_slice() else {
            panic!("{pieces:?}")
        };
        let mut values = values.clone();
        values["none"] = json!({});
        assert_eq!(rendered(text, values), expected, "{source} became {text}");
        assert!(notes.is_empty(), "{notes:?}");
    }
    for bad in [
        "{{#if a}}",
        "{{/if}}",
        "{{#shout a}}x{{/shout}}",
        "{{a",
        "{{media x=1}}",
    ] {
        assert!(convert(bad, prompt_id, &mut Vec::new()).is_err(), "{bad}");
    }
    let mut notes = Vec::new();
    convert("{{shout a}} {{json a indent=2}} {{>p x=1}}", prompt_id, &mut notes).unwrap();
    assert_eq!(notes.len(), 3, "{notes:?}");
}
