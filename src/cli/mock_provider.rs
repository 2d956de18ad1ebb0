//! `promptgate mock-provider`

use crate::mock_provider::{MockProvider, MockProviderArgs, MockProviderOptions};

use super::shutdown::Shutdown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    provider: MockProviderArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    super::start_log(false, "warn");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen()?;
        let provider = MockProvider::start(MockProviderOptions::try_from(args.provider)?)?;
        println!("mock provider http://{}/v1", provider.local_addr());
        shutdown.asked().await;
        provider.stop();
        Ok(())
    })
}
