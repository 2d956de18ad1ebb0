//! `promptgate mock-provider`

use anyhow::Context;

use crate::mock_provider::{MockProvider, MockProviderArgs, MockProviderOptions};

use super::shutdown::Shutdown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    provider: MockProviderArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    super::start_log(false, "warn");
    let options = MockProviderOptions::try_from(args.provider)?;
    let listen = options.listen;
    // Outside of the runtime: on failure it drops runtimes of its own, which must not happen inside of one.
    let provider = MockProvider::start(options)
        .with_context(|| format!("cannot listen on {listen} (--listen); is another process using it?"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen()?;
        println!("mock provider http://{}/v1", provider.local_addr());
        shutdown.asked().await;
        provider.stop();
        Ok(())
    })
}
