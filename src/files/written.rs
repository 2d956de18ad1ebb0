//! A plan as text for people: prompt by prompt, texts word by word as `prompt diff` shows them.

use std::fmt::{Display, Formatter, Result};

use super::plan::{Action, NewVersion, Plan, PlannedDeployment, PromptPlan};
use crate::domain::split::Arm;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for prompt in &self.prompts {
            writeln!(f, "{prompt}")?;
        }
        if !self.without_file.is_empty() {
            writeln!(
                f,
                "without a file, left as they are: {}\n",
                self.without_file.join(", ")
            )?;
        }
        if self.is_empty() {
            return writeln!(f, "nothing to do: the registry is as the files say");
        }
        let count = |action| self.prompts.iter().filter(|prompt| prompt.action == action).count();
        let versions: usize = self.prompts.iter().map(|prompt| prompt.versions.len()).sum();
        let deployments: usize = self.prompts.iter().map(|prompt| prompt.deployments.len()).sum();
        writeln!(
            f,
            "to do: {} prompts to create, {} to change, {} to archive; {versions} new versions, {deployments} deployments",
            count(Action::Create),
            count(Action::Update) + count(Action::Restore),
            count(Action::Archive)
        )
    }
}

impl Display for PromptPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (sign, what) = match self.action {
            Action::Create => ('+', " (new)"),
            Action::Restore => ('~', " (is archived: restored)"),
            Action::Update => ('~', ""),
            Action::Archive => ('-', " (has no file: archived)"),
            Action::Nothing => (' ', ""),
        };
        writeln!(f, "{sign} {}{what}", self.id)?;
        for field in &self.fields {
            match self.action {
                Action::Create => writeln!(f, "    {}: {}", field.name, field.to)?,
                _ => writeln!(f, "    {}: {} → {}", field.name, field.from, field.to)?,
            }
        }
        for alias in &self.aliases_added {
            writeln!(f, "    + alias {alias}")?;
        }
        for alias in &self.aliases_removed {
            writeln!(f, "    - alias {alias}")?;
        }
        for version in &self.versions {
            write!(f, "{version}")?;
        }
        for deployment in &self.deployments {
            writeln!(f, "    {deployment}")?;
        }
        for note in &self.notes {
            writeln!(f, "    note: {note}")?;
        }
        Ok(())
    }
}

impl Display for NewVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let against = self
            .base
            .map(|base| format!(", compared with {base}"))
            .unwrap_or_default();
        writeln!(f, "    version {} ({}): new{against}", self.version, self.name)?;
        for line in self.diff.to_string().lines() {
            writeln!(f, "      {line}")?;
        }
        Ok(())
    }
}

impl Display for PlannedDeployment {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let how = if self.protected {
            " (protected: proposed as a change)"
        } else {
            ""
        };
        write!(
            f,
            "{}: {} → {}{how}",
            self.environment,
            split(&self.from),
            split(&self.to)
        )
    }
}

/// Shows a split as `control=1:80, b=2:20`.
fn split(arms: &[Arm]) -> String {
    if arms.is_empty() {
        return "nothing".to_owned();
    }
    let arm = |arm: &Arm| format!("{}={}:{}", arm.variant, arm.version, arm.weight);
    arms.iter().map(arm).collect::<Vec<_>>().join(", ")
}
