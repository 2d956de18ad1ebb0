//! `promptgate promote`, `deploy-together` and `take-down`

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};

use super::deploy::say;
use super::{Server, block_on, encode, text};

#[derive(Debug, clap::Args)]
pub struct PromoteArgs {
    id: String,
    /// Where it is live
    #[arg(long, default_value = "staging")]
    from: String,
    /// Where it is to be live
    #[arg(long, default_value = "production")]
    to: String,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub struct TogetherArgs {
    environment: String,
    /// Each as id=version: support/greet=3 support/chat=7
    #[arg(required = true, value_name = "ID=VERSION")]
    prompts: Vec<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub struct TakeDownArgs {
    id: String,
    environment: String,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// Why
    #[arg(long, short, default_value = "")]
    message: String,
    /// Go live in a protected environment without approval: for admins in an emergency, needs a message
    #[arg(long)]
    break_glass: bool,
}

impl Why {
    fn into_body(self, mut body: Value) -> Value {
        body["message"] = json!(self.message);
        if self.break_glass {
            body["break_glass"] = json!(true);
        }
        body
    }
}

pub fn promote(args: PromoteArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        let body = args.why.into_body(json!({"from": args.from, "to": args.to}));
        let path = format!("/prompts/{}/promote", encode(&args.id));
        let deployment = remote.send(Method::POST, &path, &body).await?;
        say(&remote, &deployment, &args.id, &args.to);
        Ok(())
    })
}

pub fn take_down(args: TakeDownArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        let path = format!(
            "/prompts/{}/deployments/{}",
            encode(&args.id),
            encode(&args.environment)
        );
        let body = args.why.into_body(json!({}));
        let deployment = remote.send(Method::DELETE, &path, &body).await?;
        remote.done(&deployment, || {
            let (id, environment) = (&args.id, &args.environment);
            format!(
                "nothing is live of {id} in {environment} (deployment {})",
                deployment["deployment"]
            )
        });
        Ok(())
    })
}

pub fn together(args: TogetherArgs) -> anyhow::Result<()> {
    let target = |text: &String| {
        let parsed = text
            .rsplit_once('=')
            .and_then(|(id, version)| Some((id, version.parse::<u32>().ok()?)));
        let (id, version) =
            parsed.with_context(|| format!("{text:?} is not id=version, write for instance support/greet=3"))?;
        let split = json!([{"variant": "control", "version": version, "weight": 100}]);
        Ok(json!({"prompt": id, "split": split}))
    };
    let deployments: Vec<Value> = args.prompts.iter().map(target).collect::<anyhow::Result<_>>()?;
    block_on(async {
        let mut remote = args.server.connect()?;
        let body = json!({"environment": args.environment, "deployments": deployments});
        let made = remote
            .send(Method::POST, "/deployments", &args.why.into_body(body))
            .await?;
        remote.done(&made, || {
            let ids = made["deployments"].as_array().into_iter().flatten();
            let ids: Vec<String> = ids.map(|deployment| text(&deployment["prompt"])).collect();
            let (environment, generation) = (&args.environment, &made["generation"]);
            format!("live in {environment}: {} (generation {generation})", ids.join(", "))
        });
        Ok(())
    })
}
