//! promptgate: an LLM gateway and prompt management system in one binary.
//!
//! # Layout
//!
//! Read from the top: each room may use those below it, never one above it
//! (`tests/it/layering.rs` enforces this).
//!
//! | room | what it does |
//! |---|---|
//! | [`cli`] | the commands: `serve`, `demo`, `check`, `migrate`, `mock-provider` |
//! | [`app`] | builds the parts, starts them, drains them: the only wiring |
//! | [`proxy`] | the data plane: the stages of a request, in order |
//! | [`admin`] | the control plane's REST API |
//! | [`mock_provider`] | a stand-in provider for tests, benchmarks and the demo |
//! | [`snapshot`] | the compiled table that requests read, and its atomic swap |
//! | [`telemetry`] | exchange records: encoding, capture, shipping to a sink |
//! | [`import`] | other systems' exports into prompts of ours: pure |
//! | [`registry`] | durable prompts, versions, deployments, keys (SQLite or PostgreSQL) |
//! | [`upstream`] | connections to providers: pool, TLS, timeouts |
//! | [`provider`] | what each provider kind speaks: paths, credentials, usage |
//! | [`spool`] | append-only segment files every record goes through |
//! | [`tokenizer`] | counts the tokens of a text, for answers that break off before their usage |
//! | [`config`] | TOML to a validated configuration, all problems at once |
//! | [`files`] | prompts as YAML files, and their difference to a registry: pure |
//! | [`metrics`] | every metric family, in one place |
//! | [`domain`] | the vocabulary: pure types and rules, no IO, no clock |

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod files;
pub mod import;
pub mod metrics;
pub mod mock_provider;
pub mod provider;
pub mod proxy;
pub mod registry;
pub mod snapshot;
pub mod spool;
pub mod telemetry;
pub mod tokenizer;
pub mod upstream;
