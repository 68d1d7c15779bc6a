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

/// A line of mountinfo (proc_pid_mountinfo(5)), its fields as they stand there.
pub struct MountLine<'a> {
    /// Number of the mount.
    pub id: &'a [u8],
    /// Number of the one that it is mounted on.
    pub parent: &'a [u8],
    /// Major and minor number of the device.
    pub device: &'a [u8],
    /// What part of the file system is mounted.
    pub part: &'a [u8],
    pub point: &'a [u8],
    /// The options of the mount.
    pub options: &'a [u8],
    /// Name of the file system's type.
    pub kind: &'a [u8],
    /// What is mounted; may be empty.
    pub source: &'a [u8],
    /// The options of the file system itself.
    pub super_options: Option<&'a [u8]>,
}

/// The lines of mountinfo. Those of another form are left out, each for itself.
pub fn mount_lines(mountinfo: &[u8]) -> impl DoubleEndedIterator<Item = MountLine<'_>> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut next = || fields.next();
        let (id, parent, device, part, point, options) = (next()?, next()?, next()?, next()?, next()?, next()?);
        // Any number of optional fields.
        fields.find(|field| *field == b"-")?;
        let (kind, source, super_options) = (fields.next()?, fields.next()?, fields.next());
        Some(MountLine { id, parent, device, part, point, options, kind, source, super_options })
    })
}
