//! What is said of this host in more than one place.

/// The name as the kernel has it (gethostname(2)), the domain included where it was set with one.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Whether options of a mount or of a file system (proc_pid_mountinfo(5)) say that nobody can write there. ext4 keeps `rw`
/// in newer kernels, and adds why it takes nothing any more.
pub fn is_read_only(options: &[u8]) -> bool {
    options.split(|byte| *byte == b',').any(|option| matches!(option, b"ro" | b"emergency_ro" | b"shutdown"))
}
