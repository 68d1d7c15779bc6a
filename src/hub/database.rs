use std::path::{Path, PathBuf};

use super::Error;
use crate::config::Config;
use crate::hint::quoted;
use crate::program::print;
use crate::records::counted;
use crate::store::care::{self, Recovered};

/// Check whether the database is sound, copy it, or read what can be read of a damaged one.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "database",
    note = "backup and recover are for SQLite; a PostgreSQL server has pg_dump.",
    example = "hub database check\nhub database backup /var/backups/hub.db\nhub database recover /root/hub-recovered.db"
)]
pub(super) struct Arguments {
    #[argh(subcommand)]
    command: Care,
}

#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand)]
enum Care {
    Check(Check),
    Backup(Backup),
    Recover(Recover),
}

/// Look at every page and index, and count the rows.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "check")]
struct Check {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Copy it as it is now, while it is in use.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "backup")]
struct Backup {
    #[argh(positional, arg_name = "FILE")]
    /// the copy; it must not be there yet
    file: PathBuf,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Read what can be read of a damaged file into a new one, and report what is lost; the damaged one stays as it is.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "recover")]
struct Recover {
    #[argh(positional, arg_name = "FILE")]
    /// the new file; it must not be there yet
    file: PathBuf,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    match &arguments.command {
        Care::Check(Check { config }) => check(&Config::load(config.as_deref())?),
        Care::Backup(Backup { file, config }) => {
            let config = Config::load(config.as_deref())?;
            care::backup(&config, file)?;
            print(&format!("{} is a copy of {}", file.display(), path(&config)));
            Ok(())
        }
        Care::Recover(Recover { file, config }) => {
            let config = Config::load(config.as_deref())?;
            let recovered = care::recover(&config, file)?;
            recovery(&recovered);
            print(&put_in_place(&config, file));
            Ok(())
        }
    }
}

fn check(config: &Config) -> Result<(), Error> {
    let checked = care::check(config)?;
    for (table, rows) in &checked.tables {
        let rows = rows.map_or("cannot be counted".to_owned(), |rows| counted(rows, "row"));
        print(&format!("{table}: {rows}"));
    }
    checked.notes.iter().for_each(|note| print(note));
    if checked.faults.is_empty() {
        print(&format!("{} is sound", checked.target));
        return Ok(());
    }
    Err(Error::Store(crate::store::Error::Damaged { target: checked.target, reason: checked.faults.join("; ") }))
}

fn recovery(recovered: &Recovered) {
    if let Some(head) = &recovered.head {
        print(&format!("The file's own list of tables could not be used: {head}."));
    }
    for (name, table) in &recovered.tables {
        let mut line = format!("{name}: {}", counted(table.rows, "row"));
        match (table.missing(), table.expected) {
            (0, _) => {}
            (missing, Some(expected)) => line.push_str(&format!(" of {expected}; {missing} lost")),
            (missing, None) => line.push_str(&format!("; at least {missing} lost")),
        }
        if table.strays > 0 {
            let note = "were on pages that nothing led to; rows that had been deleted may be among them";
            line.push_str(&format!("; {} of them {note}", table.strays));
        }
        print(&line);
    }
    if recovered.bad_pages > 0 {
        let rest = if recovered.tables.values().all(|table| table.expected.is_some()) {
            ""
        } else {
            "; how many rows were on them is not known where no index tells"
        };
        print(&format!("{} of tables could not be read{rest}.", counted(recovered.bad_pages, "page")));
    }
    if recovered.homeless > 0 {
        print(&format!("{} fit no table, or more than one, and are left out.", counted(recovered.homeless, "row")));
    }
    if !recovered.bad_indexes.is_empty() {
        print(&format!("Indexes that were damaged are made anew: {}.", recovered.bad_indexes.join(", ")));
    }
    print(if recovered.is_whole() {
        "Nothing is lost, as far as can be known."
    } else {
        "Not all of it could be read."
    });
}

/// The path of the file, for messages.
fn path(config: &Config) -> String {
    let url = config.database_url().ok();
    let path = url.as_ref().and_then(|url| url.sqlite_path()).unwrap_or_default();
    config.state_dir.join("data").join(path).display().to_string()
}

/// How the new file takes the old one's place. A log that stayed would be taken for the new one's.
fn put_in_place(config: &Config, file: &Path) -> String {
    let old = path(config);
    let files = ["", "-wal", "-shm"].map(|suffix| format!("{old}{suffix}"));
    let files: Vec<String> = files.iter().filter(|file| Path::new(file).exists()).map(|file| quoted(file)).collect();
    let owner = std::fs::metadata(&old).map_or(String::new(), |metadata| {
        use std::os::unix::fs::MetadataExt;
        format!("-o {} -g {} ", metadata.uid(), metadata.gid())
    });
    let aside = quoted(&format!("{old}.damaged"));
    format!(
        "To use it, stop what writes (system-metrics.timer, proxy, or hub up), then:\n  mkdir {aside} && mv {} {aside}/\n  \
         install {owner}-m 640 {} {}",
        files.join(" "),
        quoted(&file.display().to_string()),
        quoted(&old)
    )
}
