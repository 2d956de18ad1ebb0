//! Exit codes only: 0, 1 for a failure, 2 for wrong usage, 3 for differences found.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match promptgate::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("promptgate: {}", promptgate::cli::explain(&error));
            promptgate::cli::exit_code(&error).into()
        }
    }
}
