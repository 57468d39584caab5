//! Runs a gateway: runtime, signals, drain.

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{CONFIGURATION, Files, complain_of_all};
use crate::app::{App, BuildError};
use crate::config::Config;
use crate::report::Chain;
use crate::signals::Signals;
use crate::supervisor::Ending;

/// Threads that run tasks. One is busy with the buses and the hub at most of the time, the other with clients; more
/// only cost memory on the machines that this is for.
const WORKERS: usize = 2;

pub(super) fn run(files: &Files) -> ExitCode {
    let loaded = match files.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            error!(
                problems = problems.0.len(),
                "the configuration cannot be used; pentad check says the same"
            );
            return complain_of_all(&problems);
        }
    };
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    with_runtime(serve(loaded.config))
}

/// Runs a future to its exit code on a fresh runtime, which is gone afterwards with everything on it.
pub(super) fn with_runtime(future: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime: Runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(future);
    // Whatever blocks a thread must not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config) -> ExitCode {
    match App::build(config) {
        Ok(app) => run_to_the_end(app).await,
        Err(error) => not_built(&error),
    }
}

/// Says why a gateway could not be put together.
pub(super) fn not_built(error: &BuildError) -> ExitCode {
    error!("{}", Chain(error));
    match error {
        BuildError::Tls(_) => ExitCode::from(CONFIGURATION),
        BuildError::Bind(_) | BuildError::Random(_) => ExitCode::FAILURE,
    }
}

/// Runs until a signal or a failure. A second signal does not wait for the drain.
pub(super) async fn run_to_the_end(app: App) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    let told = async {
        let signal = signals.stop().await;
        info!(signal, "stopping");
        stop.cancel();
        signals.stop().await
    };
    let ending = tokio::select! {
        // Dropped only when the process ends at once.
        ending = app.run(stop.clone()) => ending,
        // Dropped only when the gateway has ended.
        signal = told => {
            warn!(signal, "stopping at once");
            return ExitCode::FAILURE;
        }
    };
    match ending {
        Ending::Stopped => ExitCode::SUCCESS,
        Ending::Failed { task } => {
            error!(task = &*task, "stopped because a task failed");
            ExitCode::FAILURE
        }
        Ending::Overran { .. } => ExitCode::FAILURE,
    }
}
