//! This host's name, the same for everything that says it.

/// The name as the kernel has it (gethostname(2)), the domain included where it was set with one.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
