//! `promptgate deploy` and `promptgate rollback`

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use super::{Remote, Server, block_on, encode, split};

#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    id: String,
    environment: String,
    /// Make this version live for everybody
    #[arg(long, conflicts_with = "split", required_unless_present = "split")]
    version: Option<u32>,
    /// Arms as variant=version:weight, for instance control=1:80,b=2:20
    #[arg(long, value_delimiter = ',', value_name = "ARMS")]
    split: Vec<String>,
    /// Why
    #[arg(long, short, default_value = "")]
    message: String,
    /// Go live in a protected environment without approval: for admins in an emergency, needs a message
    #[arg(long)]
    break_glass: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    id: String,
    environment: String,
    /// Deployment to go back to [default: the last different one]
    #[arg(long)]
    to: Option<u32>,
    /// Why
    #[arg(long, short, default_value = "")]
    message: String,
    #[command(flatten)]
    server: Server,
}

pub fn deploy(args: DeployArgs) -> anyhow::Result<()> {
    let arms = match args.version {
        Some(version) => json!([{"variant": "control", "version": version, "weight": 100}]),
        None => parse_split(args.split.iter().map(String::as_str))?,
    };
    block_on(async {
        let mut remote = args.server.connect()?;
        let path = format!("/prompts/{}/deployments/{}", args.id, encode(&args.environment));
        let mut body = json!({"split": arms, "message": args.message});
        if args.break_glass {
            body["break_glass"] = json!(true);
        }
        let deployment = remote.send(Method::PUT, &path, &body).await?;
        say(&remote, &deployment, &args.id, &args.environment);
        Ok(())
    })
}

pub fn rollback(args: RollbackArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        let path = format!(
            "/prompts/{}/deployments/{}/rollback",
            args.id,
            encode(&args.environment)
        );
        let mut body = json!({"message": args.message});
        if let Some(to) = args.to {
            body["to"] = json!(to);
        }
        let deployment = remote.send(Method::POST, &path, &body).await?;
        say(&remote, &deployment, &args.id, &args.environment);
        Ok(())
    })
}

pub(super) fn say(remote: &Remote, deployment: &Value, id: &str, environment: &str) {
    if remote.json {
        return println!("{deployment}");
    }
    println!(
        "live: {id} in {environment} is {} (deployment {}, generation {})",
        split(&deployment["split"]),
        deployment["deployment"],
        deployment["generation"]
    );
}

/// Reads arms like `control=1:80`.
pub(super) fn parse_split<'a>(arms: impl Iterator<Item = &'a str>) -> anyhow::Result<Value> {
    Ok(arms.map(parse_arm).collect::<anyhow::Result<Vec<Value>>>()?.into())
}

fn parse_arm(arm: &str) -> anyhow::Result<Value> {
    let parsed = || {
        let (variant, rest) = arm.split_once('=')?;
        let (version, weight) = rest.split_once(':')?;
        Some((variant, version.parse::<u32>().ok()?, weight.parse::<f64>().ok()?))
    };
    let (variant, version, weight) = parsed()
        .with_context(|| format!("{arm:?} is not an arm, write variant=version:weight, for instance b=2:20"))?;
    if variant.is_empty() {
        bail!("{arm:?} names no variant");
    }
    Ok(json!({"variant": variant, "version": version, "weight": weight}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arm_is_read_or_refused_with_the_form() {
        assert_eq!(
            parse_arm("b=2:12.5").unwrap(),
            json!({"variant": "b", "version": 2, "weight": 12.5})
        );
        for bad in ["b", "b=2", "b=x:1", "=1:1", "b=1:y"] {
            assert!(parse_arm(bad).is_err(), "{bad}");
        }
    }
}
