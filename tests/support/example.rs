//! Programs that are not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An example, built by the cargo that runs the tests: `cargo test --test NAME` builds no examples itself.
pub fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_tailscale-gate")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells the tests that it runs. Build scripts that ask for it (ring's) would be taken to be out of date,
    // here and again in the cargo that runs the tests.
    for (variable, _) in std::env::vars_os().filter(|(variable, _)| {
        variable.to_str().is_some_and(|variable| {
            variable == "OUT_DIR" || variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
        })
    }) {
        cargo.env_remove(variable);
    }
    cargo.args(["build", "--quiet", "--example", name, "--no-default-features", "--features"]);
    let features: [(&str, bool); 3] = [
        ("postgres", cfg!(feature = "postgres")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("mongodb", cfg!(feature = "mongodb")),
    ];
    let on: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    cargo.arg(on.join(",")).args(["--target-dir"]).arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "{name} does not build");
    folder.join("examples").join(name)
}
