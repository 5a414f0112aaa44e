//! `srk completions` and `srk man`: made of the same definitions as the command line itself.
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use serde_json::json;

use super::{print, voice};
use crate::engine::outputs::Outputs;
use crate::error::{Error, Report, Result};

const COMPLETIONS: &str = "Examples:
  srk completions bash > ~/.local/share/bash-completion/completions/srk
  srk completions zsh > ~/.zfunc/_srk          with fpath+=~/.zfunc before compinit in ~/.zshrc
  srk completions fish > ~/.config/fish/completions/srk.fish
";

/// Print what a shell needs to complete srk's commands and options.
#[derive(Debug, clap::Args)]
#[command(before_help = COMPLETIONS)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const MAN: &str = "Examples:
  srk man | man -l -                           the page of srk
  srk man upscale | man -l -                   that of a command
  srk man -o ~/.local/share/man/man1           writes all of them
";

/// Print the manual page of srk or of a command, or write all of them into a folder.
#[derive(Debug, clap::Args)]
#[command(before_help = MAN)]
pub(super) struct Man {
    /// A command, such as upscale or models import
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(short, long, value_name = "DIR", conflicts_with = "command")]
    output: Option<PathBuf>,
    /// Replace pages that are there
    #[arg(long, requires = "output")]
    overwrite: bool,
}

pub(super) fn completions(args: &Completions, mut root: clap::Command) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut root, "srk", &mut text);
    put(&text)
}

/// Text on standard output, as it is.
fn put(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Failed(Report::new("cannot write to standard output", error)))
        }
        _ => Ok(()),
    }
}

/// The page of `command`.
fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut text)
        .map_err(|error| Error::Failed(Report::new("cannot make the page", error)))?;
    Ok(text)
}

/// `root` is the whole command line.
pub(super) fn man(args: &Man, root: clap::Command) -> Result<()> {
    let mut root = root.name("srk");
    root.build();
    if let Some(folder) = &args.output {
        let mut written = Vec::new();
        let mut outputs = Outputs::overwriting(args.overwrite);
        write_pages(&root, "srk", folder, &mut outputs, &mut written)?;
        voice::status(format_args!("{} pages in {}", written.len(), folder.display()));
        voice::done(json!({"written": written}));
        return print::check();
    }
    let mut command = &root;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let report = Report::new(format!("srk has no command {name}"), "");
            Error::Usage(report.help(format!("one of {}", known.join(", "))))
        })?;
    }
    put(&page(named(command.clone(), &args.command))?)
}

/// The command under its whole name, as its page is called.
fn named(command: clap::Command, path: &[String]) -> clap::Command {
    let name = std::iter::once("srk").chain(path.iter().map(String::as_str));
    command.name(name.collect::<Vec<_>>().join("-"))
}

fn write_pages(
    command: &clap::Command,
    name: &str,
    folder: &Path,
    outputs: &mut Outputs,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::Failed(Report::new(format!("cannot create {}", folder.display()), error))
    })?;
    let path = folder.join(format!("{name}.1"));
    let text = page(command.clone().name(name.to_owned()))?;
    outputs.claim(&path, &path)?;
    crate::engine::files::atomic_write(&path, |writer| writer.write_all(&text))?;
    written.push(path);
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), folder, outputs, written)?;
    }
    Ok(())
}
