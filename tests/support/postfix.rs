//! Debian's Postfix with a configuration of its own, as contrib/test unpacks it or as it is installed.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{eventually, free_address, skip};

/// A server that takes mail for `you@example.org` and `hub@[127.0.0.1]`, says 450 for `later@example.org` and 550 for all others.
pub struct Postfix {
    dir: tempfile::TempDir,
    pub address: SocketAddr,
    master: Child,
}

/// The accounts of Debian's base that its daemons run as.
const MAIL: u32 = 8;
const GAMES: u32 = 60;
const NOBODY: u32 = 65534;

const SERVICES: &str = "cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
error unix - - n - - error
retry unix - - n - - error
";

impl Postfix {
    /// None, said aloud, where it cannot run.
    pub fn start() -> Option<Self> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/peers/usr");
        let Some(usr) = [peers, "/usr".into()].into_iter().find(|usr| usr.join("lib/postfix/sbin/master").exists())
        else {
            skip::skip("e-mail to a real Postfix", "there is none in tests/.cache/peers nor under /usr/lib/postfix");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            skip::skip("e-mail to a real Postfix", "it needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (root, address) = (dir.path(), free_address());
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        let folder = |name: &str, user: u32, group: u32| {
            std::fs::create_dir_all(root.join(name)).unwrap();
            chown(root.join(name), Some(user), Some(group)).unwrap();
        };
        let queues = [
            "incoming", "active", "deferred", "bounce", "defer", "flush", "hold", "corrupt", "saved", "trace",
            "private",
        ];
        [("etc", 0, 0), ("queue", 0, 0), ("queue/pid", 0, 0), ("data", MAIL, 0), ("mail", NOBODY, NOBODY)]
            .into_iter()
            .chain([("queue/public", MAIL, GAMES), ("queue/maildrop", MAIL, GAMES)])
            .for_each(|(name, user, group)| folder(name, user, group));
        queues.iter().for_each(|name| folder(&format!("queue/{name}"), MAIL, 0));
        let (lib, here) = (usr.join("lib/postfix").display().to_string(), root.display().to_string());
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {here}/queue\ndata_directory = {here}/data\n\
             daemon_directory = {lib}/sbin\ncommand_directory = {usr}/sbin\nshlib_directory = {lib}\n\
             mail_owner = mail\nsetgid_group = games\nimport_environment = LD_LIBRARY_PATH={lib} MAIL_CONFIG={here}/etc\n\
             maillog_file = {here}/log\nmaillog_file_prefixes = {here}\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             myhostname = mail.example.org\nmydestination =\nalias_maps =\nalias_database =\n\
             local_transport = virtual\nlocal_recipient_maps =\nvirtual_mailbox_domains = example.org\n\
             virtual_mailbox_base = {here}/mail\n\
             virtual_mailbox_maps = inline:{{you@example.org=you/, {{hub@[127.0.0.1] = hub/}}}}\n\
             virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
             smtpd_helo_required = yes\nsmtpd_sender_restrictions = reject_non_fqdn_sender\n\
             smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname\n\
             smtpd_recipient_restrictions = check_recipient_access inline:{{{{later@example.org = 450 4.2.0 not now}}}}, \
             reject_unauth_destination\n",
            usr = usr.display(),
        );
        std::fs::write(root.join("etc/main.cf"), main).unwrap();
        std::fs::write(root.join("etc/master.cf"), format!("{address} inet n - n - - smtpd\n{SERVICES}")).unwrap();
        let mut master = Command::new(usr.join("lib/postfix/sbin/master"));
        master
            .arg("-c")
            .arg(root.join("etc"))
            .arg("-d")
            .env("LD_LIBRARY_PATH", &lib)
            .env("MAIL_CONFIG", root.join("etc"));
        let master = master.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let postfix = Self { dir, address, master };
        eventually("Postfix answers", || std::net::TcpStream::connect(address).is_ok());
        Some(postfix)
    }

    /// The mails that somebody got, once there are `count`.
    pub fn mails(&self, user: &str, count: usize) -> Vec<String> {
        let folder: PathBuf = self.dir.path().join("mail").join(user).join("new");
        let list =
            || std::fs::read_dir(&folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
        eventually("the mail arrives", || list().is_ok_and(|found| found.len() >= count));
        let mut found = list().unwrap();
        found.sort();
        found.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Its children end when it does.
        let pid = rustix::process::Pid::from_child(&self.master);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.master.wait();
    }
}
