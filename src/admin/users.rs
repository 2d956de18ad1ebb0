//! `/users`, their grants and tokens, and `/whoami`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, invalid, listed, time};
use super::errors::Failure;
use crate::domain::role::{EVERYWHERE, Grant, Permission, Role, Scope};
use crate::registry::{NewToken, NewUser, Token, User, UserKind, UserUpdate};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUserBody {
    name: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    grants: Vec<GrantBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Person,
    Service,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    role: String,
    #[serde(default = "everywhere")]
    environment: String,
    #[serde(default = "everywhere")]
    folder: String,
}

fn everywhere() -> String {
    EVERYWHERE.to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    display_name: Option<String>,
    disabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTokenBody {
    name: String,
    expires_at: Option<String>,
    expires_in_seconds: Option<u32>,
}

impl GrantBody {
    fn grant(self) -> Result<Grant, Failure> {
        Ok(Grant {
            role: Role::parse(&self.role).map_err(|message| invalid("role", message))?,
            environment: self.environment,
            folder: self.folder,
        })
    }
}

fn view_grants(grants: &[Grant]) -> Vec<Value> {
    let grant =
        |grant: &Grant| json!({"role": grant.role.as_str(), "environment": grant.environment, "folder": grant.folder});
    grants.iter().map(grant).collect()
}

fn view(user: &User) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "kind": user.kind.as_str(),
        "display_name": user.display_name,
        "grants": view_grants(&user.grants),
        "created_at": time(user.created_at_us),
        "created_by": user.created_by,
        "disabled_at": user.disabled_at_us.map(time),
        "generation": user.generation,
    })
}

fn view_token(token: &Token) -> Value {
    json!({
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "created_at": time(token.created_at_us),
        "created_by": token.created_by,
        "expires_at": token.expires_at_us.map(time),
        "revoked_at": token.revoked_at_us.map(time),
        "last_used_at": token.last_used_at_us.map(time),
    })
}

/// `GET /whoami`: the caller, their token, and what they may do somewhere.
pub async fn whoami(call: Call) -> Result<Response, Failure> {
    let caller = &call.caller;
    let user = call.registry().user(&caller.user_id).await?;
    let may = Permission::ALL.into_iter().filter(|p| call.may(*p, Scope::ANYWHERE));
    let may: Vec<&str> = may.map(Permission::as_str).collect();
    Ok(found(json!({
        "user": view(&user),
        "token": {"id": caller.token_id, "name": caller.token, "expires_at": caller.expires_at_us.map(time)},
        "permissions": may,
    })))
}

/// `GET /users`, by name.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ManageUsers, Scope::EVERYWHERE)?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_users(paging.page()).await?, view))
}

/// `POST /users`.
pub async fn create(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ManageUsers, Scope::EVERYWHERE)?;
    let body: NewUserBody = call.json()?;
    let new = NewUser {
        name: body.name,
        kind: match body.kind {
            Kind::Person => UserKind::Person,
            Kind::Service => UserKind::Service,
        },
        display_name: body.display_name,
        grants: body
            .grants
            .into_iter()
            .map(GrantBody::grant)
            .collect::<Result<_, _>>()?,
    };
    let change = call.registry().create_user(new, call.actor()).await?;
    call.changed(StatusCode::CREATED, change, |user| view(&user)).await
}

/// Reads `/users/{user}/…`, `me` being the caller, and asks for authority: one's own tokens are one's own business.
fn user_of(call: &Call, own: bool) -> Result<String, Failure> {
    let mut name = call.segment(1)?;
    if name == "me" {
        name.clone_from(&call.caller.user);
    }
    let oneself = name == call.caller.user || name == call.caller.user_id;
    if !(own && oneself) {
        call.require(Permission::ManageUsers, Scope::EVERYWHERE)?;
    }
    Ok(name)
}

/// `GET /users/{user}`, by name or id.
pub async fn show(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, true)?;
    Ok(found(view(&call.registry().user(&name).await?)))
}

/// `PUT /users/{user}`: changes how it is called, or whether its tokens work.
pub async fn update(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, false)?;
    let UpdateBody { display_name, disabled } = call.json()?;
    let update = UserUpdate { display_name, disabled };
    let change = call.registry().update_user(&name, update, call.actor()).await?;
    call.changed(StatusCode::OK, change, |user| view(&user)).await
}

/// `GET /users/{user}/grants`; there are few, so there is one page.
pub async fn list_grants(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, true)?;
    let user = call.registry().user(&name).await?;
    Ok(found(json!({"items": view_grants(&user.grants), "next_cursor": null})))
}

/// `POST /users/{user}/grants`.
pub async fn add_grant(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, false)?;
    let grant = call.json::<GrantBody>()?.grant()?;
    let change = call.registry().add_grant(&name, grant, call.actor()).await?;
    call.changed(StatusCode::OK, change, |user| view(&user)).await
}

/// `DELETE /users/{user}/grants?role=&environment=&folder=`.
pub async fn remove_grant(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, false)?;
    let grant = call.query::<GrantBody>()?.grant()?;
    let change = call.registry().remove_grant(&name, grant, call.actor()).await?;
    call.changed(StatusCode::OK, change, |user| view(&user)).await
}

/// `GET /users/{user}/tokens`, oldest first; never their secrets.
pub async fn list_tokens(call: Call) -> Result<Response, Failure> {
    let name = user_of(&call, true)?;
    let tokens = call.registry().list_tokens(&name).await?;
    let items: Vec<Value> = tokens.iter().map(view_token).collect();
    Ok(found(json!({"items": items, "next_cursor": null})))
}

/// `POST /users/{user}/tokens`: the only answer that has the secret.
pub async fn create_token(call: Call) -> Result<Response, Failure> {
    let user = user_of(&call, true)?;
    let body: NewTokenBody = call.json()?;
    let new = NewToken {
        expires_at_us: expiry(&call, &body)?,
        name: body.name,
    };
    let change = call.registry().create_token(&user, new, call.actor()).await?;
    call.changed(StatusCode::CREATED, change, |created| {
        let mut body = view_token(&created.token);
        body["secret"] = json!(created.secret);
        body
    })
    .await
}

/// When a new token ends. A token that ends cannot make one that outlives it, unless its user manages users anyway: a
/// stolen one would live for ever.
fn expiry(call: &Call, body: &NewTokenBody) -> Result<Option<i64>, Failure> {
    let asked = match (&body.expires_at, body.expires_in_seconds) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "expires_at",
                "is one way to say it, expires_in_seconds the other",
            ));
        }
        (Some(text), None) => {
            let at = text.parse::<jiff::Timestamp>();
            let at = at.map_err(|_| {
                invalid(
                    "expires_at",
                    format!("{text:?} is not a time like 2027-01-31T12:00:00Z"),
                )
            });
            Some(at?.as_microsecond())
        }
        (None, Some(seconds)) => Some(jiff::Timestamp::now().as_microsecond() + i64::from(seconds) * 1_000_000),
        (None, None) => None,
    };
    let Some(end) = call.caller.expires_at_us else {
        return Ok(asked);
    };
    if call.may(Permission::ManageUsers, Scope::EVERYWHERE) || asked.is_some_and(|at| at <= end) {
        return Ok(asked);
    }
    Err(invalid(
        "expires_at",
        format!("must not be after {}, when the token that makes it ends", time(end)),
    ))
}

/// `DELETE /users/{user}/tokens/{token}`.
pub async fn revoke_token(call: Call) -> Result<Response, Failure> {
    let user = user_of(&call, true)?;
    let id = call.last_segment()?;
    let change = call.registry().revoke_token(&user, &id, call.actor()).await?;
    call.changed(StatusCode::OK, change, |token| view_token(&token)).await
}
