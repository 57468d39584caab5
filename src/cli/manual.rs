//! The manual pages: pentad(1) out of the command line's own definition, pentad.toml(5) out of the commented
//! configuration that is shipped.
//!
//! Nothing is said here that stands somewhere else already, so the pages cannot fall behind the program.

use clap::{Arg, Command, ValueEnum};
use roff::{Inline, Roff, bold, italic, roman};

/// Every key of the configuration, with comments.
const CONFIGURATION: &str = include_str!("../../etc/pentad.toml");

/// The same for the list of clients.
const CLIENTS: &str = include_str!("../../etc/clients.toml");

/// A manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Page {
    /// pentad(1)
    #[value(name = "pentad")]
    Program,
    /// pentad.toml(5)
    #[value(name = "pentad.toml")]
    Configuration,
}

/// What belongs to the program and is not among its arguments: title, and pairs of a name and what it is.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "EXIT STATUS",
        &[
            ("0", "Done; for run, stopped by a signal."),
            ("1", "Failed; the log says why."),
            ("64", "Wrong usage."),
            (
                "78",
                "Wrong configuration. The service is not started again by itself after this and after 64.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop: clients are told, frames under way are finished. A second one stops at once.",
            ),
            (
                "SIGHUP",
                "Take a changed configuration over, as systemctl reload pentad does; a wrong one is refused.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("PENTAD_LOG", "What is logged, unless --log-level says so."),
            ("NO_COLOR", "No colours in the log on a terminal."),
            ("CREDENTIALS_DIRECTORY", "Set by systemd for credentials: a clients.toml there is read too."),
            ("LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM", "Set by systemd and honoured."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/pentad/pentad.toml", "The configuration, see pentad.toml(5)."),
            ("/etc/pentad/conf.d/*.toml", "More of it, read in name order."),
            ("/etc/pentad/clients.toml", "Who may come in, with their secrets."),
            ("/etc/pentad/products/*.toml", "Own products, which go before those of the same id in"),
            ("/usr/share/pentad/products/*.toml", "the products that are shipped."),
            ("/var/lib/pentad", "What outlives the process."),
        ],
    ),
];

/// The text of a page.
pub(super) fn page(page: Page, command: &Command) -> String {
    match page {
        Page::Program => program(command),
        Page::Configuration => configuration(),
    }
}

fn head(name: &str, section: &str, what: &str) -> Roff {
    let mut page = Roff::new();
    let source = format!("pentad {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name, section, &day_of_the_build(), &source, "pentad"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {what}"))]);
    page
}

/// A page bears a date; readers that find none take the next word for it.
fn day_of_the_build() -> String {
    let built =
        jiff::Timestamp::from_millisecond(crate::clock::built().0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    built.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn program(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = head("pentad", "1", &about);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("pentad"), roman(" "), italic("COMMAND"), roman(" [options]")]);
    page.control("SH", ["COMMANDS"]);
    for each in command.get_subcommands().filter(|each| !each.is_hide_set()) {
        page.control("SS", [usage(each).as_str()]);
        page.text([roman(sentence(each.get_about().map(ToString::to_string)))]);
        for argument in each.get_arguments().filter(|each| !each.is_hide_set()) {
            page.control("TP", []);
            page.text(name_of(argument));
            page.text([roman(explained(argument))]);
        }
    }
    for (title, entries) in SECTIONS {
        page.control("SH", [title]);
        for (name, what) in entries {
            page.control("TP", []);
            page.text([bold(*name)]);
            page.text([roman(*what)]);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("pentad.toml"), roman("(5), "), bold("journalctl"), roman("(1)")]);
    page.to_roff()
}

/// `pentad url DIALECT --client ID`: what has to be given.
fn usage(command: &Command) -> String {
    let mut words = vec!["pentad".to_owned(), command.get_name().to_owned()];
    for argument in command.get_arguments().filter(|each| each.is_positional() || each.is_required_set()) {
        let value = value_name(argument);
        let word = argument.get_long().map_or_else(|| value.clone(), |long| format!("--{long} {value}"));
        words.push(if argument.is_required_set() { word } else { format!("[{word}]") });
    }
    words.join(" ")
}

fn value_name(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string)
}

fn name_of(argument: &Arg) -> Vec<Inline> {
    let value = italic(value_name(argument));
    match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => vec![bold(format!("--{long} ")), value],
        Some(long) => vec![bold(format!("--{long}"))],
        None => vec![value],
    }
}

/// What an argument means, what it may be and what it is otherwise.
fn explained(argument: &Arg) -> String {
    let mut text = sentence(argument.get_help().map(ToString::to_string));
    let possible: Vec<_> =
        argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if argument.get_action().takes_values() && !possible.is_empty() {
        text = format!("{text} One of {}.", possible.join(", "));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().map(|each| each.to_string_lossy()).collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        text = format!("{text} Default: {}.", defaults.join(" "));
    }
    text
}

/// The help of clap ends without a full stop.
fn sentence(help: Option<String>) -> String {
    let help = help.unwrap_or_default();
    if help.is_empty() || help.ends_with(['.', ']']) { help } else { format!("{help}.") }
}

fn configuration() -> String {
    let mut page = head("pentad.toml", "5", "configuration of pentad");
    page.control("SH", ["DESCRIPTION"]);
    explain(CONFIGURATION, &mut page);
    page.control("SH", ["CLIENTS.TOML"]);
    explain(CLIENTS, &mut page);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("pentad"),
        roman("(1), "),
        bold("pentad check"),
        roman(" tells whether a configuration is right"),
    ]);
    page.to_roff()
}

/// Turns a commented file round: a comment stands before what it explains, an explanation behind its heading.
fn explain(file: &str, page: &mut Roff) {
    let mut comment: Vec<&str> = Vec::new();
    // What follows a heading begins a paragraph by itself.
    let mut begins = true;
    for line in file.lines().chain([""]) {
        if let Some(title) = line.strip_prefix("# ---- ") {
            page.control("SH", [title.trim_end_matches(['-', ' ']).to_uppercase().as_str()]);
            begins = true;
            continue;
        }
        let setting = match line.strip_prefix('#') {
            Some(prose) if prose.is_empty() || prose.starts_with(' ') => {
                comment.push(prose.trim());
                continue;
            }
            Some(setting) => setting,
            None => line,
        };
        let prose = roman(std::mem::take(&mut comment).join(" "));
        let has_prose = prose != roman("");
        if setting.starts_with('[') {
            page.control("SS", [setting]);
            begins = true;
        } else if (has_prose || !setting.is_empty()) && !std::mem::replace(&mut begins, false) {
            page.control("PP", []);
        }
        if !setting.is_empty() && !setting.starts_with('[') {
            page.text([bold(setting)]);
        }
        if has_prose && !setting.is_empty() && !setting.starts_with('[') {
            page.control("RS", ["4"]);
            page.text([prose]);
            page.control("RE", []);
        } else if has_prose {
            page.text([prose]);
            begins = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(page: &str) -> String {
        page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
    }

    #[test]
    fn the_page_of_the_program_has_every_command_and_option() {
        let command = super::super::command();
        let text = plain(&page(Page::Program, &command));
        for each in command.get_subcommands() {
            assert!(text.contains(&format!("pentad {}", each.get_name())), "{} in {text}", each.get_name());
            for argument in each.get_arguments().filter_map(Arg::get_long) {
                assert!(text.contains(&format!("--{argument}")), "--{argument} in {text}");
            }
        }
        assert!(text.contains("Default: /etc/pentad/pentad.toml."), "{text}");
    }

    #[test]
    fn the_page_of_the_configuration_has_every_setting_and_comment() {
        // Titles are in capitals.
        let text = plain(&page(Page::Configuration, &super::super::command())).to_uppercase();
        for line in CONFIGURATION.lines().chain(CLIENTS.lines()) {
            let line = line.trim_start_matches('#').trim();
            for word in line.split_whitespace().filter(|word| !word.contains(['\\', '"', '\'', '-'])) {
                assert!(text.contains(&word.to_uppercase()), "{word} of {line} in {text}");
            }
        }
    }

    #[test]
    fn an_explanation_stands_behind_what_it_explains() {
        let mut roff = Roff::new();
        explain(
            "# About all.\n\n# ---- Ways ----\n\n#[[serial]]\n# Of\n# two lines.\n#id = \"a\"\n",
            &mut roff,
        );
        let text = plain(&roff.to_roff());
        let places: Vec<_> = ["About all.", ".SH WAYS", ".SS [[serial]]", "id = ", "Of two lines."]
            .iter()
            .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in {text}")))
            .collect();
        assert!(places.is_sorted(), "{text}");
    }
}
