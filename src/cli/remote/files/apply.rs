//! Carries out a plan, call by call: prompts and what is written about them, versions (partials first), what is live, and at the
//! end what is put away.
//!
//! Each call names what the plan saw (`If-Match`, `expected`), so that somebody else's change in between is refused and not
//! overwritten; running it again then plans anew. A run that breaks off leaves what it has done, which the next one finds.

use http::Method;
use serde_json::{Value, json};

use super::super::{Remote, encode, text, with_query};
use crate::domain::split::Arm;
use crate::files::plan::{Action, Plan, PlannedDeployment, PromptPlan};

/// The most prompts of one change, and fewer than one call may deploy together.
const MAX_TOGETHER: usize = 50;

/// What was done, and what stopped it.
pub struct Applied {
    pub done: Vec<Value>,
    pub result: anyhow::Result<()>,
}

/// Carries out a plan. `message_of` gives the message of a new version of a prompt by its name in the file, if it has its own.
pub async fn apply(
    remote: &mut Remote,
    plan: &Plan,
    message: &str,
    message_of: &dyn Fn(&str, &str) -> Option<String>,
) -> Applied {
    let mut run = Run {
        remote,
        message,
        message_of,
        done: Vec::new(),
    };
    let result = run.all(plan).await;
    Applied { done: run.done, result }
}

struct Run<'a> {
    remote: &'a mut Remote,
    message: &'a str,
    message_of: &'a dyn Fn(&str, &str) -> Option<String>,
    done: Vec<Value>,
}

impl Run<'_> {
    /// Notes a step, and says it at once: a later one may fail.
    fn did(&mut self, what: &str, prompt: &str, detail: Value, sentence: &str) {
        if !self.remote.json {
            println!("{sentence}");
        }
        self.done
            .push(json!({"step": what, "prompt": prompt, "detail": detail}));
    }

    async fn all(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for todo in &plan.prompts {
            self.prompt(todo).await?;
        }
        for id in &plan.order {
            for todo in plan.prompts.iter().filter(|todo| todo.id == *id) {
                self.versions(todo).await?;
            }
        }
        let environments = plan.prompts.iter().flat_map(|todo| &todo.deployments);
        let mut environments: Vec<&str> = environments.map(|deployment| deployment.environment.as_str()).collect();
        let mut seen = std::collections::BTreeSet::new();
        environments.retain(|name| seen.insert(*name));
        for environment in environments {
            let moves: Vec<(&str, &PlannedDeployment)> = plan
                .prompts
                .iter()
                .flat_map(|todo| {
                    todo.deployments
                        .iter()
                        .map(move |deployment| (todo.id.as_str(), deployment))
                })
                .filter(|(_, deployment)| deployment.environment == environment)
                .collect();
            self.deployments(environment, &moves).await?;
        }
        for todo in &plan.prompts {
            self.put_away(todo).await?;
        }
        Ok(())
    }

    async fn prompt(&mut self, todo: &PromptPlan) -> anyhow::Result<()> {
        let (id, path) = (todo.id.as_str(), format!("/prompts/{}", encode(&todo.id)));
        let mut body = json!({});
        for field in &todo.fields {
            body[field.name] = field.to.clone();
        }
        let mut revision = todo.revision;
        match todo.action {
            Action::Create => {
                body["id"] = json!(id);
                self.remote.send(Method::POST, "/prompts", &body).await?;
                self.did("create", id, json!(null), &format!("created {id}"));
            }
            Action::Restore => {
                let message = json!({"message": self.message});
                let restored = self
                    .remote
                    .send(Method::POST, &format!("{path}/restore"), &message)
                    .await?;
                revision = restored["revision"].as_u64().unwrap_or(revision);
                self.did("restore", id, json!(null), &format!("restored {id}"));
            }
            _ => {}
        }
        if todo.action != Action::Create && !todo.fields.is_empty() {
            body["message"] = json!(self.message);
            let etag = format!("\"{revision}\"");
            self.remote
                .with(Method::PATCH, &path, ("if-match", &etag), &body)
                .await?;
            let names: Vec<&str> = todo.fields.iter().map(|field| field.name).collect();
            self.did(
                "update",
                id,
                json!(names),
                &format!("changed {} of {id}", names.join(", ")),
            );
        }
        for alias in &todo.aliases_added {
            let path = format!("{path}/aliases/{}", encode(alias));
            self.remote.send(Method::PUT, &path, &Value::Null).await?;
            self.did("add_alias", id, json!(alias), &format!("{id} is also called {alias}"));
        }
        Ok(())
    }

    async fn versions(&mut self, todo: &PromptPlan) -> anyhow::Result<()> {
        let path = format!("/prompts/{}/versions", encode(&todo.id));
        for version in &todo.versions {
            let message = (self.message_of)(&todo.id, &version.name);
            let message = message.unwrap_or_else(|| self.message.to_owned());
            let body = json!({"content": version.source, "message": message});
            let stored = self.remote.send(Method::POST, &path, &body).await?;
            let number = &stored["version"];
            let said = format!("stored {}:{number} ({})", todo.id, version.name);
            self.did("version", &todo.id, number.clone(), &said);
            anyhow::ensure!(
                *number == version.version,
                "somebody stored a version of {} at the same time: {number} is ours, not {}; run it again",
                todo.id,
                version.version
            );
        }
        Ok(())
    }

    async fn deployments(&mut self, environment: &str, moves: &[(&str, &PlannedDeployment)]) -> anyhow::Result<()> {
        let (off, live): (Vec<(&str, &PlannedDeployment)>, Vec<_>) =
            moves.iter().partition(|(_, deployment)| deployment.to.is_empty());
        for together in live.chunks(MAX_TOGETHER) {
            if together[0].1.protected {
                self.propose(environment, together).await?;
                continue;
            }
            let deployment = |(id, deployment): &(&str, &PlannedDeployment)| json!({"prompt": id, "split": deployment.to, "expected": deployment.base});
            let all: Vec<Value> = together.iter().map(deployment).collect();
            let body = json!({"environment": environment, "deployments": all, "message": self.message});
            let made = self.remote.send(Method::POST, "/deployments", &body).await?;
            for (id, deployment) in together {
                let said = format!(
                    "live: {id} in {environment} is {}",
                    super::super::split(&json!(deployment.to))
                );
                self.did(
                    "deploy",
                    id,
                    json!({"environment": environment, "generation": made["generation"]}),
                    &said,
                );
            }
        }
        for (id, deployment) in off {
            if deployment.protected {
                // A change proposes what goes live, not that nothing is.
                let said = format!(
                    "{environment} is protected, {id} stays live: an admin can take it down (promptgate take-down)"
                );
                self.did("left", id, json!({"environment": environment}), &said);
                continue;
            }
            let path = format!("/prompts/{}/deployments/{}", encode(id), encode(environment));
            let (etag, body) = (format!("\"{}\"", deployment.base), json!({"message": self.message}));
            self.remote
                .with(Method::DELETE, &path, ("if-match", &etag), &body)
                .await?;
            let said = format!("nothing is live of {id} in {environment}");
            self.did("take_down", id, json!({"environment": environment}), &said);
        }
        Ok(())
    }

    /// Proposes deployments, unless a change waits that proposes just these.
    async fn propose(&mut self, environment: &str, together: &[(&str, &PlannedDeployment)]) -> anyhow::Result<()> {
        let ids: Vec<&str> = together.iter().map(|(id, _)| *id).collect();
        let ids = ids.join(", ");
        for state in ["open", "approved", "rejected"] {
            let path = with_query("/changes", &[("environment", environment), ("state", state)]);
            let known = self.remote.all(&path).await?;
            if let Some(known) = known.iter().find(|known| proposes(known, together)) {
                let number = &known["id"];
                let said = format!("change {number} in {environment} is {state} already: {ids}");
                self.did(
                    "waits",
                    "",
                    json!({"change": number, "state": state, "environment": environment}),
                    &said,
                );
                return Ok(());
            }
        }
        let deployment = |(id, deployment): &(&str, &PlannedDeployment)| json!({"prompt": id, "split": deployment.to});
        let all: Vec<Value> = together.iter().map(deployment).collect();
        let body = json!({"environment": environment, "deployments": all, "message": self.message});
        let change = self.remote.send(Method::POST, "/changes", &body).await?;
        let number = &change["id"];
        let said = format!("{environment} is protected, proposed change {number}: {ids}");
        self.did(
            "propose",
            "",
            json!({"change": number, "environment": environment}),
            &said,
        );
        Ok(())
    }

    async fn put_away(&mut self, todo: &PromptPlan) -> anyhow::Result<()> {
        let (id, path) = (todo.id.as_str(), format!("/prompts/{}", encode(&todo.id)));
        for alias in &todo.aliases_removed {
            let path = format!("{path}/aliases/{}", encode(alias));
            self.remote.send(Method::DELETE, &path, &Value::Null).await?;
            self.did(
                "remove_alias",
                id,
                json!(alias),
                &format!("{id} is not called {alias} any more"),
            );
        }
        if todo.action == Action::Archive {
            let body = json!({"message": self.message});
            self.remote
                .send(Method::POST, &format!("{path}/archive"), &body)
                .await?;
            self.did("archive", id, json!(null), &format!("archived {id}"));
        }
        Ok(())
    }
}

/// Whether a change proposes just these deployments, on top of what is live now.
fn proposes(change: &Value, together: &[(&str, &PlannedDeployment)]) -> bool {
    let proposed: Vec<&Value> = change["deployments"].as_array().into_iter().flatten().collect();
    let same = |(id, deployment): &(&str, &PlannedDeployment)| {
        let found = proposed.iter().find(|one| text(&one["prompt"]) == *id);
        found.is_some_and(|one| {
            let split: Vec<Arm> = serde_json::from_value(one["split"].clone()).unwrap_or_default();
            split == deployment.to && one["base"] == deployment.base
        })
    };
    proposed.len() == together.len() && together.iter().all(same)
}
