//! Every call of the control plane: what it is, what it asks of its caller, what it takes and answers.

use crate::domain::role::Permission::{self, *};

/// One call.
pub(in crate::admin) struct Call {
    pub method: &'static str,
    pub path: &'static str,
    pub need: Need,
    pub(super) summary: &'static str,
    pub(super) query: &'static [&'static str],
    /// Schema of the body.
    pub(super) body: Option<&'static str>,
    pub(super) status: u16,
    /// Answers 201 where it made what was not there.
    pub(super) creates: bool,
    /// Schema of the answer.
    pub(super) answer: &'static str,
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Need {
    /// Nothing at all.
    Nothing,
    /// A token, whatever it may do.
    Token,
    May(Permission),
    /// The permission, unless it is about the caller's own user.
    Unless(Permission),
}

const PAGE: &[&str] = &["limit", "cursor"];
const PROMPTS: &[&str] = &[
    "q",
    "folder",
    "recursive",
    "tag",
    "owner",
    "archived",
    "limit",
    "cursor",
];
const FOLDERS: &[&str] = &["folder", "archived"];
const DIFF: &[&str] = &["from", "to"];
const DRAFT: &[&str] = &["user"];
const SHIFTS: &[&str] = &["state", "limit", "cursor"];
const EXCHANGES: &[&str] = &[
    "from",
    "to",
    "prompt",
    "version",
    "variant",
    "environment",
    "model",
    "outcome",
    "unit",
    "min_latency_us",
    "min_cost_nanodollars",
    "text",
    "limit",
    "cursor",
    "content",
];
const CHANGES: &[&str] = &["state", "environment", "proposer", "prompt", "limit", "cursor"];
const CHANGE_STATS: &[&str] = &["environment", "from", "to"];
const AUDIT: &[&str] = &[
    "actor",
    "action",
    "subject",
    "environment",
    "from",
    "to",
    "order",
    "limit",
    "cursor",
];
const DELIVERIES: &[&str] = &["state", "limit", "cursor"];
const GRANT: &[&str] = &["role", "environment", "folder"];
const STATS: &[&str] = &[
    "group_by",
    "from",
    "to",
    "prompt",
    "version",
    "variant",
    "environment",
    "model",
    "outcome",
    "unit",
    "min_latency_us",
    "min_cost_nanodollars",
    "text",
    "limit",
];

const fn read(path: &'static str, summary: &'static str, query: &'static [&'static str], answer: &'static str) -> Call {
    Call {
        method: "get",
        path,
        need: Need::May(Permission::Read),
        summary,
        query,
        body: None,
        status: 200,
        creates: false,
        answer,
    }
}

const fn write(
    method: &'static str,
    permission: Permission,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answer: (u16, &'static str),
) -> Call {
    Call {
        method,
        path,
        need: Need::May(permission),
        summary,
        query: &[],
        body,
        status: answer.0,
        creates: false,
        answer: answer.1,
    }
}

impl Call {
    const fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    const fn or_creates(mut self) -> Self {
        self.creates = true;
        self
    }

    const fn asks(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }
}

/// Every call under `/api/v1`.
pub(in crate::admin) const CALLS: &[Call] = &[
    read(
        "/prompts",
        "List prompts and what is live of them",
        PROMPTS,
        "PromptList",
    ),
    write(
        "post",
        Write,
        "/prompts",
        "Create a prompt",
        Some("NewPrompt"),
        (201, "Prompt"),
    ),
    read("/folders", "Count what is in a folder", FOLDERS, "Folder"),
    read("/prompts/{id}", "Show a prompt, also by an alias", &[], "Prompt"),
    write(
        "patch",
        Write,
        "/prompts/{id}",
        "Change description, tags or owner",
        Some("SetPrompt"),
        (200, "Prompt"),
    ),
    write(
        "post",
        Write,
        "/prompts/{id}/rename",
        "Give another id; the present one becomes an alias",
        Some("Rename"),
        (200, "Prompt"),
    ),
    write(
        "post",
        Write,
        "/prompts/{id}/archive",
        "Put away what nothing live needs",
        Some("Message"),
        (200, "Prompt"),
    ),
    write(
        "post",
        Write,
        "/prompts/{id}/restore",
        "Take out of the archive",
        Some("Message"),
        (200, "Prompt"),
    ),
    read(
        "/prompts/{id}/diff",
        "Compare versions, a draft, and what is live",
        DIFF,
        "Diff",
    ),
    read(
        "/prompts/{id}/uses",
        "List the partials of each version",
        PAGE,
        "UsesList",
    ),
    read(
        "/prompts/{id}/used-by",
        "List the versions that include it",
        PAGE,
        "UsedByList",
    ),
    read(
        "/prompts/{id}/updates",
        "List versions whose partials are behind",
        &[],
        "UpdateList",
    ),
    read("/prompts/{id}/drafts", "List everybody's drafts", PAGE, "DraftList"),
    read(
        "/prompts/{id}/drafts/{name}",
        "Show a draft with its problems",
        DRAFT,
        "Draft",
    ),
    write(
        "put",
        Write,
        "/prompts/{id}/drafts/{name}",
        "Save a draft, broken or not (201 if it is new)",
        Some("SaveDraft"),
        (200, "Draft"),
    )
    .asks(DRAFT)
    .or_creates(),
    write(
        "delete",
        Write,
        "/prompts/{id}/drafts/{name}",
        "Delete a draft",
        None,
        (200, "Draft"),
    )
    .asks(DRAFT),
    write(
        "post",
        Write,
        "/prompts/{id}/drafts/{name}/commit",
        "Make a draft the next version",
        Some("CommitDraft"),
        (201, "Version"),
    )
    .asks(DRAFT),
    write(
        "post",
        Deploy,
        "/prompts/{id}/promote",
        "Copy what is live to another environment",
        Some("Promote"),
        (200, "Deployment"),
    ),
    read("/prompts/{id}/shifts", "List a prompt's shifts", SHIFTS, "ShiftList"),
    write(
        "post",
        Deploy,
        "/prompts/{id}/shifts",
        "Plan a scheduled or gradual shift",
        Some("NewShift"),
        (201, "Shift"),
    ),
    read("/shifts", "List shifts, newest first", SHIFTS, "ShiftList"),
    read("/shifts/{shift}", "Show a shift", &[], "Shift"),
    write(
        "post",
        Deploy,
        "/shifts/{shift}/cancel",
        "Stop a shift before its next step",
        Some("Message"),
        (200, "Shift"),
    ),
    write(
        "post",
        Deploy,
        "/deployments",
        "Make several prompts live in one change",
        Some("DeployTogether"),
        (200, "DeployedTogether"),
    ),
    read(
        "/prompts/{id}/versions",
        "List versions, newest first",
        PAGE,
        "VersionList",
    ),
    write(
        "post",
        Write,
        "/prompts/{id}/versions",
        "Store the next version",
        Some("NewVersion"),
        (201, "Version"),
    ),
    read(
        "/prompts/{id}/versions/{version}",
        "Show a version with its content",
        &[],
        "Version",
    ),
    read(
        "/prompts/{id}/deployments/{environment}",
        "Show what is live, with its ETag",
        &[],
        "Deployment",
    ),
    write(
        "put",
        Deploy,
        "/prompts/{id}/deployments/{environment}",
        "Make a split live",
        Some("NewDeployment"),
        (200, "Deployment"),
    ),
    write(
        "delete",
        Deploy,
        "/prompts/{id}/deployments/{environment}",
        "Take a prompt off an environment",
        Some("TakeDown"),
        (200, "Deployment"),
    ),
    read(
        "/prompts/{id}/deployments/{environment}/history",
        "List deployments, newest first",
        PAGE,
        "DeploymentList",
    ),
    write(
        "post",
        Deploy,
        "/prompts/{id}/deployments/{environment}/rollback",
        "Go back",
        Some("Rollback"),
        (200, "Deployment"),
    ),
    write(
        "post",
        Read,
        "/prompts/{id}/preflight",
        "Rehearse a deployment on recorded requests",
        Some("NewPreflight"),
        (200, "Preflight"),
    ),
    write(
        "put",
        Write,
        "/prompts/{id}/aliases/{alias}",
        "Let another name lead here",
        None,
        (200, "Prompt"),
    ),
    write(
        "delete",
        Write,
        "/prompts/{id}/aliases/{alias}",
        "Take such a name away",
        None,
        (200, "Prompt"),
    ),
    read("/keys", "List applications' keys, never their secrets", PAGE, "KeyList"),
    write(
        "post",
        ManageKeys,
        "/keys",
        "Make a key, shown once",
        Some("NewKey"),
        (201, "Key"),
    ),
    write("delete", ManageKeys, "/keys/{key}", "Revoke a key", None, (200, "Key")),
    read("/environments", "List environments", &[], "EnvironmentList"),
    read("/environments/{name}", "Show an environment", &[], "Environment"),
    write(
        "put",
        ManageEnvironments,
        "/environments/{name}",
        "Protect an environment, or create one",
        Some("SetEnvironment"),
        (200, "Environment"),
    ),
    write(
        "patch",
        ManageEnvironments,
        "/environments/{name}",
        "Label, order or protect an environment",
        Some("PatchEnvironment"),
        (200, "Environment"),
    ),
    write(
        "delete",
        ManageEnvironments,
        "/environments/{name}",
        "Delete an environment that was never used",
        Some("Message"),
        (200, "Environment"),
    ),
    read("/changes", "List proposed changes, newest first", CHANGES, "ChangeList"),
    write(
        "post",
        Propose,
        "/changes",
        "Propose deployments",
        Some("NewChange"),
        (201, "Change"),
    ),
    read("/changes/stats", "How long reviews take", CHANGE_STATS, "ChangeStats"),
    read("/changes/{change}", "Show a change", &[], "Change"),
    write(
        "put",
        Propose,
        "/changes/{change}",
        "Propose something else instead",
        Some("ReviseChange"),
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/submit",
        "Open a draft for review",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/refresh",
        "Put it on top of what is live by now",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/preflight",
        "Rehearse it on recorded requests again",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/withdraw",
        "Take it back",
        Some("Message"),
        (200, "Change"),
    ),
    write(
        "post",
        Approve,
        "/changes/{change}/approve",
        "Approve it",
        Some("Verdict"),
        (200, "Change"),
    ),
    write(
        "post",
        Approve,
        "/changes/{change}/reject",
        "Reject it",
        Some("Verdict"),
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/comments",
        "Comment on it",
        Some("NewComment"),
        (201, "Change"),
    ),
    write(
        "put",
        Check,
        "/changes/{change}/checks/{name}",
        "Report a check",
        Some("NewCheck"),
        (200, "Change"),
    ),
    write(
        "post",
        Deploy,
        "/changes/{change}/apply",
        "Make it live",
        None,
        (200, "Change"),
    ),
    read("/webhooks", "List webhooks, never their secrets", PAGE, "WebhookList").needs(Need::May(ManageWebhooks)),
    write(
        "post",
        ManageWebhooks,
        "/webhooks",
        "Have a URL told of what happens; the secret is shown once",
        Some("NewWebhook"),
        (201, "CreatedWebhook"),
    ),
    read("/webhooks/{webhook}", "Show a webhook", &[], "Webhook").needs(Need::May(ManageWebhooks)),
    write(
        "patch",
        ManageWebhooks,
        "/webhooks/{webhook}",
        "Change a webhook, disable or enable it",
        Some("SetWebhook"),
        (200, "Webhook"),
    ),
    write(
        "delete",
        ManageWebhooks,
        "/webhooks/{webhook}",
        "Delete a webhook with what waits for it",
        None,
        (200, "Webhook"),
    ),
    write(
        "post",
        ManageWebhooks,
        "/webhooks/{webhook}/secret",
        "Sign with another secret, shown once",
        None,
        (200, "CreatedWebhook"),
    ),
    write(
        "post",
        ManageWebhooks,
        "/webhooks/{webhook}/test",
        "Send a ping, and say what came of it",
        None,
        (200, "Delivery"),
    ),
    read(
        "/webhooks/{webhook}/deliveries",
        "List deliveries, newest first",
        DELIVERIES,
        "DeliveryList",
    )
    .needs(Need::May(ManageWebhooks)),
    write(
        "post",
        ManageWebhooks,
        "/webhooks/{webhook}/deliveries/{delivery}/resend",
        "Send a delivery once more",
        None,
        (200, "Delivery"),
    ),
    read("/audit", "List who changed what, newest first", AUDIT, "AuditList").needs(Need::May(ReadAudit)),
    read(
        "/audit/verify",
        "Follow the audit log's chain",
        &["head"],
        "AuditVerification",
    )
    .needs(Need::May(ReadAudit)),
    read(
        "/whoami",
        "Show the caller's user, token and permissions",
        &[],
        "WhoAmI",
    )
    .needs(Need::Token),
    read("/users", "List users, by name", PAGE, "UserList").needs(Need::May(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users",
        "Create a user",
        Some("NewUser"),
        (201, "User"),
    ),
    read("/users/{user}", "Show a user, by name or id", &[], "User").needs(Need::Unless(ManageUsers)),
    write(
        "put",
        ManageUsers,
        "/users/{user}",
        "Rename for display, disable or enable",
        Some("SetUser"),
        (200, "User"),
    ),
    read("/users/{user}/grants", "List what a user is granted", &[], "GrantList").needs(Need::Unless(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users/{user}/grants",
        "Grant a role",
        Some("Grant"),
        (200, "User"),
    ),
    Call {
        query: GRANT,
        ..write(
            "delete",
            ManageUsers,
            "/users/{user}/grants",
            "Take a grant away",
            None,
            (200, "User"),
        )
    },
    read(
        "/users/{user}/tokens",
        "List a user's tokens, never their secrets",
        &[],
        "TokenList",
    )
    .needs(Need::Unless(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users/{user}/tokens",
        "Make a token, shown once",
        Some("NewToken"),
        (201, "Token"),
    )
    .needs(Need::Unless(ManageUsers)),
    write(
        "delete",
        ManageUsers,
        "/users/{user}/tokens/{token}",
        "Revoke a token",
        None,
        (200, "Token"),
    )
    .needs(Need::Unless(ManageUsers)),
    read(
        "/exchanges",
        "List what was recorded, newest first",
        EXCHANGES,
        "ExchangeList",
    ),
    read(
        "/exchanges/{exchange}",
        "Show an exchange with its feedback",
        &[],
        "Exchange",
    ),
    read("/stats", "Figures by group", STATS, "Stats"),
    read(
        "/erasures",
        "List what was asked to be erased, newest first",
        PAGE,
        "ErasureList",
    )
    .needs(Need::May(EraseContent)),
    write(
        "post",
        EraseContent,
        "/erasures",
        "Have the content of a person's exchanges erased, in the background",
        Some("NewErasure"),
        (202, "Erasure"),
    ),
    read("/erasures/{erasure}", "Show how far an erasure is", &[], "Erasure").needs(Need::May(EraseContent)),
    read("/nodes", "List the processes that serve this registry", &[], "NodeList"),
    read("/openapi.json", "This text", &[], "Any").needs(Need::Token),
    read(
        "/healthz",
        "Is the process alive? (not under /api/v1, no token)",
        &[],
        "Any",
    )
    .needs(Need::Nothing),
    read(
        "/readyz",
        "Does it take requests? (not under /api/v1, no token)",
        &[],
        "Any",
    )
    .needs(Need::Nothing),
];
