//! Writes the manual pages, the completions of three shells and the JSON Schema of hub.toml: `manual FOLDER [METADATA]`. All of it
//! comes from the command lines as the programs declare them, from the keys in src/config/keys, and from the texts in contrib/man.
//! With a file of what `cargo metadata` prints, it also writes the package's copyright file.

mod bash;
mod commands;
mod copyright;
mod example;
mod fish;
mod pages;
mod roff;
mod schema;
mod zsh;

use std::path::{Path, PathBuf};

use observability_hub::Exit;

fn main() -> Result<(), String> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("name the folder to write to: manual FOLDER")?;
    let programs = commands::programs();
    for (command, _) in &programs {
        complete(command)?;
    }
    let only: Vec<&commands::Command> = programs.iter().map(|(command, _)| command).collect();
    for (name, section, text) in pages::pages(&programs) {
        put(&folder, &format!("man/man{section}/{name}.{section}"), &text)?;
    }
    for command in &only {
        put(&folder, &format!("bash/{}", command.page()), &bash::script(command)?)?;
        put(&folder, &format!("fish/{}.fish", command.page()), &fish::script(command)?)?;
    }
    put(&folder, "zsh/_hub", &zsh::script(&only)?)?;
    if let Some(metadata) = std::env::args_os().nth(2) {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", metadata.display());
        let text = std::fs::read(&metadata).map_err(|error| wrong(&error))?;
        let metadata = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        put(&folder, "copyright", &copyright::copyright(&metadata)?)?;
    }
    put(&folder, "hub.toml", &example::example())?;
    put(&folder, "hub.schema.json", &schema::schema()?)
}

/// Refuses what nobody has described.
fn complete(command: &commands::Command) -> Result<(), String> {
    for command in command.all() {
        let words = command.words();
        let described = command.flags().map(|flag| (flag.long, flag.description));
        let described = described.chain(command.positionals().map(|one| (one.name, one.description)));
        for (name, text) in described.chain([("the command", command.info.description)]) {
            if text.trim().is_empty() {
                return Err(format!("{words}: {name} has no sentence"));
            }
        }
        let unknown = command.exits.iter().find(|(code, _)| Exit::ALL.iter().all(|exit| *exit as i32 != *code));
        if let Some((code, _)) = unknown {
            return Err(format!("{words}: no program of the hub ends with {code}"));
        }
    }
    Ok(())
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}
