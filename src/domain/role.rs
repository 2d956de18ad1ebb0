//! Who may do what: roles, what each may do, and where a grant of one reaches.
//!
//! A user has grants, each a role in one environment or all, for one folder of prompts or all. A request asks whether
//! any single grant has the permission and reaches as far as the request does; two grants never add up to a third.

use std::fmt;

/// One thing to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See prompts, versions, deployments, environments, keys without secrets, records without content, figures.
    Read,
    /// Propose changes and comment on them.
    Propose,
    /// Create prompts and versions, give and take aliases.
    Write,
    /// Approve and reject what others propose.
    Approve,
    /// Make a split live, roll back, apply approved changes.
    Deploy,
    /// Report the result of a check.
    Check,
    /// See variables, requests and responses as captured.
    ReadContent,
    /// See, verify and export the audit log.
    ReadAudit,
    ManageKeys,
    ManageEnvironments,
    ManageUsers,
    /// See and change who is told of what.
    ManageWebhooks,
    /// Have a person's content erased for good.
    EraseContent,
    /// Deploy to a protected environment without approval.
    BreakGlass,
}

impl Permission {
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::Propose,
        Self::Write,
        Self::Approve,
        Self::Deploy,
        Self::Check,
        Self::ReadContent,
        Self::ReadAudit,
        Self::ManageKeys,
        Self::ManageEnvironments,
        Self::ManageUsers,
        Self::ManageWebhooks,
        Self::EraseContent,
        Self::BreakGlass,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Propose => "propose",
            Self::Write => "write",
            Self::Approve => "approve",
            Self::Deploy => "deploy",
            Self::Check => "check",
            Self::ReadContent => "read_content",
            Self::ReadAudit => "read_audit",
            Self::ManageKeys => "manage_keys",
            Self::ManageEnvironments => "manage_environments",
            Self::ManageUsers => "manage_users",
            Self::ManageWebhooks => "manage_webhooks",
            Self::EraseContent => "erase_content",
            Self::BreakGlass => "break_glass",
        }
    }
}

/// A bundle of permissions that is granted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees everything but content, and may suggest changes.
    Viewer,
    Editor,
    Reviewer,
    Deployer,
    /// External CI: reports checks, and does nothing else. A role of its own, so that whoever writes a version does not
    /// also pass its checks.
    Checker,
    ContentReader,
    Admin,
}

impl Role {
    pub const ALL: [Self; 7] = [
        Self::Viewer,
        Self::Editor,
        Self::Reviewer,
        Self::Deployer,
        Self::Checker,
        Self::ContentReader,
        Self::Admin,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Reviewer => "reviewer",
            Self::Deployer => "deployer",
            Self::Checker => "checker",
            Self::ContentReader => "content_reader",
            Self::Admin => "admin",
        }
    }

    /// Returns the role of that name.
    ///
    /// # Errors
    /// A sentence with the names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|role| role.as_str() == name);
        known.copied().ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("{name:?} is not a role, use one of {names}")
        })
    }

    /// Returns what it may do: the one table of authority.
    pub fn permissions(self) -> &'static [Permission] {
        use Permission::*;
        match self {
            Self::Viewer => &[Read, Propose],
            Self::Editor => &[Read, Propose, Write],
            Self::Reviewer => &[Read, Propose, Approve, ReadAudit],
            Self::Deployer => &[Read, Propose, Deploy, ReadAudit],
            Self::Checker => &[Read, Check],
            Self::ContentReader => &[Read, Propose, ReadContent],
            Self::Admin => &Permission::ALL,
        }
    }

    pub fn may(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }

    /// Returns the names of the roles that may, the least powerful first.
    pub fn with(permission: Permission) -> Vec<&'static str> {
        let may = Self::ALL.iter().filter(|role| role.may(permission));
        may.map(|role| role.as_str()).collect()
    }
}

/// How a grant says "all of them".
pub const EVERYWHERE: &str = "*";

/// A role, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    pub role: Role,
    /// A name, or [`EVERYWHERE`].
    pub environment: String,
    /// The first segments of prompt ids, without a slash at the end, or [`EVERYWHERE`].
    pub folder: String,
}

impl Grant {
    /// A role without limits.
    pub fn everywhere(role: Role) -> Self {
        Self {
            role,
            environment: EVERYWHERE.to_owned(),
            folder: EVERYWHERE.to_owned(),
        }
    }

    fn reaches(&self, scope: Scope<'_>) -> bool {
        let environment = match scope.environment {
            Reach::Any => true,
            Reach::All => self.environment == EVERYWHERE,
            Reach::One(name) => self.environment == EVERYWHERE || self.environment == name,
        };
        let prompt = match scope.prompt {
            Reach::Any => true,
            Reach::All => self.folder == EVERYWHERE,
            Reach::One(id) => self.folder == EVERYWHERE || in_folder(id, &self.folder),
        };
        environment && prompt
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.as_str())?;
        if self.environment != EVERYWHERE {
            write!(f, "@{}", self.environment)?;
        }
        if self.folder != EVERYWHERE {
            write!(f, ":{}", self.folder)?;
        }
        Ok(())
    }
}

/// Whether a prompt is the folder's own or below it.
fn in_folder(id: &str, folder: &str) -> bool {
    id.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How far a request reaches in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// It does not matter: any grant will do.
    Any,
    /// All of them: only a grant for all will do.
    All,
    One(&'a str),
}

/// How far a request reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    pub environment: Reach<'a>,
    pub prompt: Reach<'a>,
}

impl<'a> Scope<'a> {
    /// Wherever the caller may.
    pub const ANYWHERE: Self = Self {
        environment: Reach::Any,
        prompt: Reach::Any,
    };

    /// The whole installation.
    pub const EVERYWHERE: Self = Self {
        environment: Reach::All,
        prompt: Reach::All,
    };

    /// A prompt, whatever the environment: versions belong to none.
    pub fn prompt(id: &'a str) -> Self {
        Self {
            environment: Reach::Any,
            prompt: Reach::One(id),
        }
    }

    /// A whole environment.
    pub fn environment(name: &'a str) -> Self {
        Self {
            environment: Reach::One(name),
            prompt: Reach::All,
        }
    }

    /// A prompt in an environment.
    pub fn live(prompt: &'a str, environment: &'a str) -> Self {
        Self {
            environment: Reach::One(environment),
            prompt: Reach::One(prompt),
        }
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prompt {
            Reach::Any => {}
            Reach::All => f.write_str(" for all prompts")?,
            Reach::One(id) => write!(f, " for prompt {id:?}")?,
        }
        match self.environment {
            Reach::Any => Ok(()),
            Reach::All => f.write_str(" in all environments"),
            Reach::One(name) => write!(f, " in environment {name:?}"),
        }
    }
}

/// Whether one of the grants allows it there.
pub fn allows(grants: &[Grant], permission: Permission, scope: Scope<'_>) -> bool {
    grants
        .iter()
        .any(|grant| grant.role.may(permission) && grant.reaches(scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each role × permission, written out: a change of authority is a change of this table.
    #[test]
    fn roles_have_these_permissions_and_no_others() {
        let table = "
            permission           viewer editor reviewer deployer checker content_reader admin
            read                 x      x      x        x        x       x              x
            propose              x      x      x        x        -       x              x
            write                -      x      -        -        -       -              x
            approve              -      -      x        -        -       -              x
            deploy               -      -      -        x        -       -              x
            check                -      -      -        -        x       -              x
            read_content         -      -      -        -        -       x              x
            read_audit           -      -      x        x        -       -              x
            manage_keys          -      -      -        -        -       -              x
            manage_environments  -      -      -        -        -       -              x
            manage_users         -      -      -        -        -       -              x
            manage_webhooks      -      -      -        -        -       -              x
            erase_content        -      -      -        -        -       -              x
            break_glass          -      -      -        -        -       -              x
        ";
        let mut lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|line| !line.is_empty());
        let roles: Vec<Role> = lines.next().unwrap()[1..]
            .iter()
            .map(|name| Role::parse(name).unwrap())
            .collect();
        assert_eq!(roles, Role::ALL);
        let mut seen = Vec::new();
        for line in lines {
            let permission = Permission::ALL.into_iter().find(|p| p.as_str() == line[0]).unwrap();
            for (role, mark) in roles.iter().zip(&line[1..]) {
                assert_eq!(role.may(permission), *mark == "x", "{role:?} {permission:?}");
            }
            seen.push(permission);
        }
        assert_eq!(seen, Permission::ALL);
    }

    fn grant(role: Role, environment: &str, folder: &str) -> Grant {
        Grant {
            role,
            environment: environment.to_owned(),
            folder: folder.to_owned(),
        }
    }

    #[test]
    fn grants_reach_their_environment_and_folder() {
        let limited = [grant(Role::Deployer, "staging", "support")];
        let everywhere = [Grant::everywhere(Role::Deployer)];
        for (scope, reached) in [
            (Scope::ANYWHERE, true),
            (Scope::live("support/greet", "staging"), true),
            (Scope::live("support", "staging"), true),
            (Scope::live("support/greet", "production"), false),
            (Scope::live("supporters/greet", "staging"), false),
            (Scope::live("sales/greet", "staging"), false),
            (Scope::live("", "staging"), false),
            (Scope::prompt("support/greet"), true),
            (Scope::prompt("sales"), false),
            (Scope::environment("staging"), false),
            (Scope::EVERYWHERE, false),
        ] {
            assert_eq!(allows(&limited, Permission::Deploy, scope), reached, "{scope:?}");
            assert!(allows(&everywhere, Permission::Deploy, scope), "{scope:?}");
            assert!(!allows(&everywhere, Permission::Approve, scope), "{scope:?}");
        }
    }

    #[test]
    fn grants_do_not_add_up() {
        let grants = [
            grant(Role::Deployer, "staging", EVERYWHERE),
            grant(Role::Reviewer, "production", EVERYWHERE),
            grant(Role::Deployer, EVERYWHERE, "sales"),
        ];
        assert!(!allows(
            &grants,
            Permission::Deploy,
            Scope::live("support", "production")
        ));
        assert!(!allows(&grants, Permission::Deploy, Scope::EVERYWHERE));
        assert!(allows(&grants, Permission::Approve, Scope::environment("production")));
        assert!(!allows(&[], Permission::Read, Scope::ANYWHERE));
    }

    #[test]
    fn unknown_role_is_refused_with_the_known_ones() {
        let message = Role::parse("root").unwrap_err();
        assert!(message.contains("content_reader, admin"), "{message}");
        assert_eq!(Role::with(Permission::Deploy), ["deployer", "admin"]);
    }
}
