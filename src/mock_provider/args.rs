//! The command line of `promptgate mock-provider`: one flag a control.

use std::net::SocketAddr;

use super::{ControlError, Controls, MockProviderOptions};

/// Flags of `promptgate mock-provider`; the controls among them are defaults a request may override.
#[derive(Clone, Debug, clap::Args)]
pub struct MockProviderArgs {
    /// Address to serve on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Threads, each with its own runtime
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    pub workers: u16,
    /// Keep the last request for GET /__mock/stats
    #[arg(long)]
    pub remember: bool,

    /// Wait so long before the response head, e.g. 20ms
    #[arg(long, value_name = "DURATION")]
    pub latency: Option<String>,
    /// Words of the generated text [default: 16]
    #[arg(long, value_name = "N")]
    pub tokens: Option<String>,
    /// Time between the chunks of a stream, e.g. 2ms; 0 writes all at once [default: 0]
    #[arg(long, value_name = "DURATION")]
    pub chunk_interval: Option<String>,
    /// Answer everything with this error status
    #[arg(long, value_name = "400-599")]
    pub status: Option<String>,
    /// Retry-After of 429 and 503 answers [default: 1]
    #[arg(long, value_name = "SECONDS|DATE")]
    pub retry_after: Option<String>,
    /// Go silent for ever: before the head, after it, or after N chunks
    #[arg(long, value_name = "head|body|N")]
    pub stall: Option<String>,
    /// Close the connection: before the head, after it, or after N chunks (plain answers: mid-body)
    #[arg(long, value_name = "head|body|N")]
    pub cut: Option<String>,
    /// Make the Nth chunk, or a plain body, broken JSON
    #[arg(long, value_name = "N")]
    pub malformed: Option<String>,
    /// Send an error event after N chunks, then end the stream
    #[arg(long, value_name = "N")]
    pub error_in_stream: Option<String>,
    /// Never report usage
    #[arg(long)]
    pub no_usage: bool,
    /// End streams without `[DONE]`
    #[arg(long)]
    pub no_done: bool,
    /// Write streams in pieces of N bytes, cutting characters and events anywhere
    #[arg(long, value_name = "N")]
    pub split: Option<String>,
    /// Answer with exactly this text, one chunk a word
    #[arg(long, value_name = "PERCENT-ENCODED")]
    pub text: Option<String>,
    /// Answer with a text of exactly so many bytes
    #[arg(long, value_name = "BYTES")]
    pub size: Option<String>,
    /// End the lines of streams with CRLF
    #[arg(long)]
    pub crlf: bool,
    /// Put a ": keep-alive" comment before each event of a stream
    #[arg(long)]
    pub pad_comments: bool,
    /// Answer with the request's messages, byte for byte
    #[arg(long)]
    pub echo: bool,
    /// Call the request's first tool
    #[arg(long)]
    pub tool_call: bool,
    /// Answer 401 unless requests carry this key: `Authorization: Bearer <key>`
    #[arg(long, value_name = "KEY")]
    pub require_key: Option<String>,
    /// Another seed gives other texts [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,
}

impl TryFrom<MockProviderArgs> for MockProviderOptions {
    type Error = ControlError;

    fn try_from(args: MockProviderArgs) -> Result<Self, ControlError> {
        let mut defaults = Controls {
            no_usage: args.no_usage,
            no_done: args.no_done,
            crlf: args.crlf,
            pad_comments: args.pad_comments,
            echo: args.echo,
            tool_call: args.tool_call,
            remember: args.remember,
            ..Controls::default()
        };
        for (name, value) in [
            ("latency", args.latency),
            ("tokens", args.tokens),
            ("chunk-interval", args.chunk_interval),
            ("status", args.status),
            ("retry-after", args.retry_after),
            ("stall", args.stall),
            ("cut", args.cut),
            ("malformed", args.malformed),
            ("error-in-stream", args.error_in_stream),
            ("split", args.split),
            ("text", args.text),
            ("size", args.size),
            ("require-key", args.require_key),
            ("seed", args.seed),
        ] {
            if let Some(value) = value {
                defaults.set(name, &value)?;
            }
        }
        Ok(Self {
            listen: args.listen,
            workers: usize::from(args.workers),
            defaults,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::mock_provider::Point;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: MockProviderArgs,
    }

    fn options(flags: &[&str]) -> Result<MockProviderOptions, ControlError> {
        let command = Command::try_parse_from([&["mock-provider"], flags].concat()).expect("flags of the command");
        command.args.try_into()
    }

    #[test]
    fn no_flags_give_the_defaults() {
        let options = options(&[]).unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:9090");
        assert_eq!((options.workers, options.defaults), (1, Controls::default()));
    }

    #[test]
    fn flags_become_default_controls() {
        let flags = [
            "--workers",
            "2",
            "--cut",
            "3",
            "--latency",
            "5ms",
            "--echo",
            "--remember",
        ];
        let options = options(&flags).unwrap();
        assert_eq!(options.workers, 2);
        let expected = Controls {
            cut: Some(Point::AfterChunks(3)),
            latency: std::time::Duration::from_millis(5),
            echo: true,
            remember: true,
            ..Controls::default()
        };
        assert_eq!(options.defaults, expected);
    }

    #[test]
    fn bad_flag_value_names_the_control() {
        let error = options(&["--stall", "later"]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error,
            "mock control `stall` cannot be `later`: expected head, body or a number of chunks"
        );
    }
}
