//! Integration tests: the gateway as its callers and operators meet it.
//!
//! [`support::TestGateway`] starts it in process, [`support::Process`] as the real binary; behind both is the mock provider.
//! Files are topics. Everything waits for conditions with a deadline, and listens on ports the system picks.

mod calls;
mod commands;
mod demo;
mod files;
mod full;
mod input;
mod kill;
mod layering;
mod plain;
mod preflight;
mod privacy;
mod publish;
mod records;
mod roles;
mod rules;
mod streams;
mod support;
mod tls;
mod tokens;
mod webhooks;
