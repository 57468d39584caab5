//! Runs a gateway: runtime, signals, drain.

use std::pin::Pin;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{CONFIGURATION, Files, complain_of_all};
use crate::app::{App, BuildError, Control};
use crate::config::Severity;
use crate::notify;
use crate::report::Chain;
use crate::signals::{Signals, Told};
use crate::supervisor::{Ending, panic_message};

/// Threads that run tasks. One is busy with the buses and the hub at most of the time, the other with clients; more
/// only cost memory on the machines that this is for.
const WORKERS: usize = 2;

pub(super) fn run(files: &Files) -> ExitCode {
    with_runtime(serve(files.clone()))
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

async fn serve(files: Files) -> ExitCode {
    // Before anything else: a reload that is asked for while the process starts must not kill it.
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return deaf(&error),
    };
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
    match App::build(loaded.config) {
        Ok(app) => Box::pin(run_to_the_end(app, signals, Some(files))).await,
        Err(error) => not_built(&error),
    }
}

/// Says why no signal can be heard.
pub(super) fn deaf(error: &std::io::Error) -> ExitCode {
    error!(%error, "cannot listen for signals");
    ExitCode::FAILURE
}

/// Says why a gateway could not be put together.
pub(super) fn not_built(error: &BuildError) -> ExitCode {
    error!("{}", Chain(error));
    match error {
        BuildError::Tls(_) => ExitCode::from(CONFIGURATION),
        BuildError::Bind(_) | BuildError::Random(_) => ExitCode::FAILURE,
    }
}

/// Runs until a signal or a failure. A second signal does not wait for the drain. What a reload reads stands in
/// `files`, if anything does.
pub(super) async fn run_to_the_end(app: App, mut signals: Signals, files: Option<Files>) -> ExitCode {
    let control = app.control();
    let stop = CancellationToken::new();
    let told = async {
        // One reload at a time; one that is asked for meanwhile comes after it.
        let mut reload: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        let mut again = false;
        let signal = loop {
            tokio::select! {
                // Cancel-safe, see there.
                told = signals.next() => match (told, &files) {
                    (Told::Stop(signal), _) => break signal,
                    (Told::Reload, Some(_)) => again = true,
                    (Told::Reload, None) => info!("SIGHUP: there is no configuration to read again"),
                },
                // Not dropped when the other arm wins, but for a stop.
                () = async {
                    match &mut reload {
                        Some(under_way) => under_way.as_mut().await,
                        None => std::future::pending().await,
                    }
                } => reload = None,
            }
            if let (true, None, Some(files)) = (again, &reload, &files) {
                reload = Some(Box::pin(reread(&control, files)));
                again = false;
            }
        };
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

/// Reads the configuration again and runs with it, or says why not. The service manager waits for the end of it.
async fn reread(control: &Control, files: &Files) {
    notify::reloading();
    info!("reading the configuration again");
    let files = files.clone();
    let (status, is_refused) = match tokio::task::spawn_blocking(move || files.load()).await {
        Ok(Ok(loaded)) => {
            for warning in &loaded.warnings {
                warn!("{warning}");
            }
            match control.reload(loaded.config).await {
                Ok(applied) if applied.changes.is_empty() => {
                    info!("the configuration is what it was");
                    (applied.status, false)
                }
                Ok(applied) => {
                    info!(changes = applied.changes.len(), "the changed configuration runs");
                    (applied.status, false)
                }
                Err(refusal) => (refused(&Chain(&refusal).to_string(), 0), true),
            }
        }
        Ok(Err(problems)) => {
            for problem in &problems.0 {
                error!("{problem}");
            }
            let first = problems.0.iter().find(|problem| problem.severity == Severity::Error);
            let reason = first.map(ToString::to_string).unwrap_or_default();
            (refused(&reason, problems.0.len().saturating_sub(1)), true)
        }
        Err(error) => (refused(&panic_message(error), 0), true),
    };
    notify::ready(&status);
    control.reloaded(is_refused.then_some(status));
}

/// Says that the old configuration runs on. Gives the status line.
fn refused(reason: &str, more: usize) -> String {
    error!(
        reason,
        "the changed configuration is refused, the old one runs on; pentad check says the same of its files"
    );
    let more = if more > 0 { format!(" (and {more} more, see the log)") } else { String::new() };
    format!("reload refused, the old configuration runs on: {}{more}", reason.replace('\n', " "))
}
