//! What the parser of the command line says of arguments that it does not take, as an error like any other.
use std::error::Error as _;
use std::ffi::OsString;

use clap::error::ErrorKind;

use crate::error::{Error, Report};

/// What was wrong with `arguments`, why, and what helps, each for itself.
pub(super) fn of(error: &clap::Error, arguments: &[OsString], root: &clap::Command) -> Error {
    let command = command(arguments, root);
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let report = Report::new("a command is missing", format!("{command} alone does nothing"));
        return Error::Usage(report.help(format!("{command} --help    shows the commands")));
    }
    let cause = error.source().map(ToString::to_string);
    Error::Usage(report(&error.render().to_string(), cause.as_deref(), &command))
}

/// The command that was named: `srk`, `srk upscale`, `srk models import`.
fn command(arguments: &[OsString], root: &clap::Command) -> String {
    let (mut at, mut words) = (root, vec!["srk"]);
    for argument in arguments.iter().skip(1) {
        if let Some(found) = at.find_subcommand(argument) {
            at = found;
            words.push(found.get_name());
        }
    }
    words.join(" ")
}

/// The parts of `text`, which ends its first line with `cause`, if there is one:
///
/// ```text
/// error: the following required arguments were not provided:
///   <INPUT>...
///
///   tip: ...
///
/// Usage: srk upscale <INPUT>...
/// ```
fn report(text: &str, cause: Option<&str>, command: &str) -> Report {
    let mut paragraphs = text.split("\n\n");
    let mut lines = paragraphs.next().unwrap_or_default().lines();
    let what = lines.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let what = cause.and_then(|cause| what.strip_suffix(cause)).unwrap_or(what).trim_end();
    let more: Vec<&str> = lines.map(|line| line.trim().trim_matches(['[', ']'])).collect();
    let cause = cause.map(str::to_owned).into_iter();
    let cause: Vec<String> = cause.chain((!more.is_empty()).then(|| more.join(", "))).collect();
    let tips = paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: "));
    let tips: Vec<&str> = tips.collect();
    let help = match tips.is_empty() {
        true => format!("{command} --help    shows what it takes"),
        false => tips.join("; "),
    };
    Report::new(what.trim_end_matches(':'), cause.join("; ")).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_told_apart() {
        let text = "error: the following required arguments were not provided:\n  <INPUT>...\n  <B>\n\n\
                    Usage: srk upscale --json <INPUT>...\n\nFor more information, try '--help'.\n";
        let Report { what, cause, help, .. } = report(text, None, "srk upscale");
        assert_eq!(what, "the following required arguments were not provided");
        assert_eq!((cause.as_str(), &help[..18]), ("<INPUT>..., <B>", "srk upscale --help"));
        let text = "error: invalid value '9x' for '--fit <WxH>': both sides: 9x9\n\n\
                    For more information, try '--help'.\n";
        let Report { what, cause, help, .. } = report(text, Some("both sides: 9x9"), "srk");
        assert_eq!(what, "invalid value '9x' for '--fit <WxH>'");
        assert_eq!((cause.as_str(), &help[..10]), ("both sides: 9x9", "srk --help"));
        let text = "error: invalid value 'x' for '--alpha <A>'\n  [possible values: keep, drop]\n\n  \
                    tip: a similar value exists: 'keep'\n\nFor more information, try '--help'.\n";
        let Report { what, cause, help, .. } = report(text, None, "srk");
        assert_eq!(what, "invalid value 'x' for '--alpha <A>'");
        assert_eq!(cause, "possible values: keep, drop");
        assert_eq!(help, "a similar value exists: 'keep'");
    }
}
