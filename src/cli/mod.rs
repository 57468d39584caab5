//! The command line: what can be asked for, and the exit code that says how it went.
//!
//! Exit codes: 0 done, 1 failure, 64 wrong usage, 78 wrong configuration. The last two are those of sysexits.h, and
//! systemd is told not to try again after them.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Loaded, Places, Problems, SHIPPED_PRODUCTS, load};
use crate::model::client::Dialect;
use crate::telemetry;

mod commands;
mod demo;
mod manual;
mod run;
mod scan;
mod tls;

/// Wrong usage.
const USAGE: u8 = 64;

/// Wrong configuration.
const CONFIGURATION: u8 = 78;

/// What `--version` says. Whoever builds a release sets the variable to the version with the commit.
const VERSION: &str = match option_env!("PENTAD_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// What `--help` begins with.
const ABOUT: &str = "IoT gateway: Modbus and MQTT devices, served in five WebSocket dialects";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "pentad", about = ABOUT, long_about = None, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        #[command(flatten)]
        files: Files,
        #[command(flatten)]
        log: Log,
    },
    /// Check a configuration and print how busy its buses will be
    Check {
        #[command(flatten)]
        files: Files,
    },
    /// Run a gateway with a simulated plant that needs nothing but this program
    Demo {
        /// Where to listen
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where the embedded MQTT broker listens, an address or a port; a free port is chosen if the default is
        /// taken
        #[arg(long, value_name = "ADDR|PORT", value_parser = parse_broker)]
        broker: Option<SocketAddr>,
        #[command(flatten)]
        log: Log,
    },
    /// Print ready-made addresses for a client, secrets included
    Url {
        /// Whose addresses
        #[arg(value_parser = ["janus", "sagoo", "ithings", "oam", "uplus", "all"])]
        dialect: String,
        /// Id of the client
        #[arg(long, value_name = "ID")]
        client: String,
        /// Host and port that clients reach the gateway by, when the configuration does not tell
        #[arg(long, value_name = "HOST:PORT")]
        host: Option<String>,
        #[command(flatten)]
        files: Files,
    },
    /// Find Modbus units on a serial line or a network address, and print the beginning of a configuration
    Scan(scan::Scan),
    /// Print a fresh random secret for a client
    Token,
    /// Make a certificate
    Tls {
        #[command(subcommand)]
        command: tls::Tls,
    },
    /// Print what makes a shell complete the arguments of pentad
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print a manual page, in the language of man
    Man {
        /// Which page
        #[arg(default_value = "pentad")]
        page: manual::Page,
    },
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
struct Files {
    /// The configuration; conf.d/*.toml, products/*.toml and clients.toml beside it are read too
    #[arg(long, value_name = "FILE", default_value = "/etc/pentad/pentad.toml")]
    config: PathBuf,
    /// The folder with the products that came with the program
    #[arg(long, value_name = "DIR", default_value = SHIPPED_PRODUCTS)]
    products: PathBuf,
}

impl Files {
    fn load(&self) -> Result<Loaded, Problems> {
        load(&Places {
            config: self.config.clone(),
            products: self.products.clone(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        })
    }
}

/// How much to log.
#[derive(Debug, Args)]
struct Log {
    #[arg(
        long,
        value_name = "LEVEL",
        help = "error, warn, info, debug, trace, or a list such as info,pentad::serve=debug [env: PENTAD_LOG]"
    )]
    log_level: Option<String>,
}

/// Does what the arguments say; the first one is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = command().try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, which knows where each of them is printed.
            let asked = error.exit_code() == 0;
            return match error.print() {
                Ok(()) if asked => ExitCode::SUCCESS,
                Ok(()) | Err(_) => ExitCode::from(USAGE),
            };
        }
    };
    match cli.command {
        Command::Run { files, log } => with_log(&log, || run::run(&files)),
        Command::Demo { listen, broker, log } => with_log(&log, || demo::demo(listen, broker)),
        Command::Check { files } => commands::check(&files),
        Command::Url { dialect, client, host, files } => {
            commands::url(&dialects(&dialect), &client, host.as_deref(), &files)
        }
        Command::Scan(scan) => scan::scan(&scan),
        Command::Token => commands::token(),
        Command::Tls { command } => tls::tls(command),
        Command::Completions { shell } => commands::completions(shell, &mut command()),
        Command::Man { page } => say(manual::page(page, &command()).trim_end()),
    }
}

/// The whole command line, as clap knows it.
fn command() -> clap::Command {
    Cli::command().version(VERSION)
}

fn with_log(log: &Log, then: impl FnOnce() -> ExitCode) -> ExitCode {
    match telemetry::init(log.log_level.as_deref()) {
        Ok(()) => then(),
        Err(error) => {
            complain(&crate::report::Chain(&error).to_string());
            ExitCode::from(USAGE)
        }
    }
}

fn parse_broker(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse::<u16>().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    port.or_else(|_| text.parse()).map_err(|_| "give an address such as 127.0.0.1:1883, or a port".to_owned())
}

/// One or all of the dialects.
fn dialects(name: &str) -> Vec<Dialect> {
    Dialect::ALL.into_iter().filter(|dialect| name == "all" || dialect.name() == name).collect()
}

/// Prints what was asked for. A reader that has gone (`pentad check | head`) is no failure.
fn say(text: &str) -> ExitCode {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints what went wrong.
fn complain(text: &str) {
    // Without standard error there is nobody to tell; the exit code still says it.
    drop(writeln!(io::stderr().lock(), "pentad: {text}"));
}

/// Prints everything that is wrong with a configuration.
fn complain_of_all(problems: &Problems) -> ExitCode {
    drop(writeln!(io::stderr().lock(), "{problems}"));
    ExitCode::from(CONFIGURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_broker_is_an_address_or_a_port() {
        assert_eq!(parse_broker("1884"), Ok("127.0.0.1:1884".parse().unwrap()));
        assert_eq!(parse_broker("127.0.0.2:1"), Ok("127.0.0.2:1".parse().unwrap()));
        assert!(parse_broker("local").is_err());
    }
}
