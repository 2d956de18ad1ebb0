//! What a preflight compares a candidate with.

use super::{Deployment, Registry, RegistryError, deploy, deployments, environments, prompts};

/// What is live, and what a rollback would make live.
#[derive(Debug, Clone, PartialEq)]
pub struct Present {
    pub live: Option<Deployment>,
    pub target: Option<Deployment>,
}

impl Registry {
    /// Returns what is live for a prompt in an environment, and where a rollback without a number would go.
    ///
    /// # Errors
    /// When the prompt or the environment does not exist, or the database fails.
    pub async fn present(&self, prompt: &str, environment: &str) -> Result<Present, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let protected = environments::one(&mut tx, environment).await?.protected;
        let mut history = deployments::history(&mut tx, &prompt, environment).await?;
        let target = deploy::target(&history, &prompt, environment, protected, None);
        let target = target.ok().map(|number| history[number as usize - 1].clone());
        let live = history.pop();
        Ok(Present { live, target })
    }
}
