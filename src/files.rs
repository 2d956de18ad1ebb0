//! Prompts as files: what a team keeps in Git, one YAML file a prompt, and the difference to a registry.
//!
//! A file names contents, not version numbers: which version has a content is found by comparing what was written, so that the same
//! files suit every registry, and going through an empty one changes no byte. Everything here is pure: folders, HTTP
//! and printing are the command line's business (`src/cli/remote/files.rs`).
//!
//! | file | what |
//! |---|---|
//! | [`prompt_file`] | the shape of a file: reading it with every problem and its place, writing it |
//! | [`yaml`] | YAML out, byte-stable |
//! | [`node`] | YAML in, with lines and columns |
//! | [`state`] | what a registry has, as far as files are concerned, and the file it amounts to |
//! | [`effective`] | what a text becomes with its partials, before the registry makes it so |
//! | [`plan`] | what would have to change, and [`written`], how a person reads that |

pub mod effective;
pub mod node;
pub mod plan;
pub mod prompt_file;
pub mod state;
pub mod written;
pub mod yaml;

#[cfg(test)]
mod tests;
