use std::fmt;
use std::path::{Path, PathBuf};

use super::{Error, WebUrl, environment};
use crate::state::Folder;

/// Where the installed units' `LoadCredential=` finds credentials (systemd.exec(5)).
pub const CREDSTORE: &str = "/etc/credstore";

/// A secret shorter than this is guessed too easily to guard a host.
const SHORTEST_SECRET: usize = 16;
pub(super) const LONGEST_CREDENTIAL: usize = 64 * 1024;

/// What the units hand over in place of a credential that is not there (systemd.exec(5), SetCredential=). An empty one is
/// something else: a file that was meant to guard something.
const NONE: &[u8] = b"(none)";

/// Where systemd looks for a bare name that is not in the first store (systemd.exec(5), LoadCredential=).
const OTHER_STORES: [&str; 2] = ["/run/credstore", "/usr/lib/credstore"];

/// A secret in memory. It has no text form.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as a token for a header, without white space around it; none where it cannot be one.
    pub fn token(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
    }

    /// A text that the token was shown to, without it: who echoes it must not get it into a log.
    pub fn kept_from(&self, text: &str) -> String {
        self.token().map_or_else(|| text.to_owned(), |token| text.replace(token, "(the token)"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The credentials that systemd hands to this process (systemd.exec(5), LoadCredential=), or a folder in their place.
#[derive(Clone, Debug)]
pub struct Credentials {
    folder: PathBuf,
    /// Where what is not in the folder is looked for.
    others: Vec<PathBuf>,
}

impl Credentials {
    pub(super) fn new(folder: PathBuf) -> Self {
        let others = if folder == Path::new(CREDSTORE) { OTHER_STORES.map(PathBuf::from).into() } else { Vec::new() };
        Self { folder, others }
    }

    /// The credentials in a folder; it may be missing.
    pub fn in_folder(folder: &Path) -> Self {
        Self::new(folder.to_owned())
    }

    /// The folder they are read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a credential, in the first store that has it; where none has, the one to put it at.
    pub fn path(&self, name: &str) -> PathBuf {
        let all = std::iter::once(&self.folder).chain(&self.others).map(|folder| folder.join(name));
        all.clone().find(|path| path.symlink_metadata().is_ok()).unwrap_or_else(|| self.folder.join(name))
    }

    /// A credential; none where there is no such file, or what stands for it.
    ///
    /// # Errors
    /// When it cannot be read or is longer than 64 KiB.
    pub fn read(&self, name: &str) -> Result<Option<Secret>, Error> {
        for folder in std::iter::once(&self.folder).chain(&self.others) {
            if let Some(found) = read(folder, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A credential that the configuration names and that must be there.
    ///
    /// # Errors
    /// As `read`, and when it is missing.
    pub fn require(&self, name: &str) -> Result<Secret, Error> {
        self.read(name)?.ok_or_else(|| Error::Credential {
            name: name.to_owned(),
            reason: format!(
                "is missing: put it into {} (in a unit: LoadCredential={name}, from /etc/credstore/)",
                self.folder.join(name).display()
            ),
        })
    }

    /// A URL that is kept as a credential, since it may be all that keeps strangers out.
    ///
    /// # Errors
    /// As `read`, and where it is no URL.
    pub fn url(&self, name: &str) -> Result<Option<WebUrl>, Error> {
        let Some(secret) = self.read(name)? else { return Ok(None) };
        let url = std::str::from_utf8(&secret.0).map_err(|_| "is not UTF-8".to_owned());
        let wrong = |reason| Error::Credential { name: name.to_owned(), reason };
        url.and_then(|url| WebUrl::new(url.trim())).map(Some).map_err(wrong)
    }

    /// The webhook secrets: `$GITHUB_WEBHOOK_SECRET`, else the lines of the credential `webhook-secret`. Several are
    /// accepted at once, for rotation. Empty where none is configured.
    ///
    /// # Errors
    /// When a secret is shorter than 16 bytes, or the credential cannot be read.
    pub fn webhook_secrets(&self) -> Result<Vec<Secret>, Error> {
        if let Some(secret) = environment("GITHUB_WEBHOOK_SECRET") {
            if secret.len() < SHORTEST_SECRET {
                return Err(Error::Environment { name: "GITHUB_WEBHOOK_SECRET", reason: too_short(secret.len()) });
            }
            return Ok(vec![Secret(secret.into_bytes())]);
        }
        let Some(content) = self.read("webhook-secret")? else { return Ok(Vec::new()) };
        let mut secrets = Vec::new();
        for (number, line) in content.bytes().split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if line.len() < SHORTEST_SECRET {
                let reason =
                    format!("{}:{}: {}", self.path("webhook-secret").display(), number + 1, too_short(line.len()));
                return Err(Error::Credential { name: "webhook-secret".to_owned(), reason });
            }
            secrets.push(Secret(line.to_owned()));
        }
        Ok(secrets)
    }

    /// The token that admin requests need, without the newline at its end; none where none is configured.
    ///
    /// # Errors
    /// When it is empty, or cannot be read.
    pub fn admin_token(&self) -> Result<Option<Secret>, Error> {
        let name = "admin-token";
        let Some(content) = self.read(name)? else { return Ok(None) };
        match content.bytes().trim_ascii() {
            [] => {
                let reason = "is empty; make one with: openssl rand -hex 32".to_owned();
                Err(Error::Credential { name: name.to_owned(), reason })
            }
            token => Ok(Some(Secret(token.to_owned()))),
        }
    }
}

fn too_short(length: usize) -> String {
    format!("has {length} bytes, at least {SHORTEST_SECRET} are needed; make one with: openssl rand -hex 32")
}

fn read(folder: &Path, name: &str) -> Result<Option<Secret>, Error> {
    let failed = |source: crate::state::Error| Error::Unreadable { name: name.to_owned(), source };
    let folder = match Folder::open(folder) {
        Ok(folder) => folder,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let content = folder.read(name, LONGEST_CREDENTIAL).map_err(failed)?;
    Ok(content.filter(|content| content != NONE).map(Secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_of_the_units_has_what_stands_for_a_missing_one() {
        let mut seen = 0;
        for unit in crate::systemd::OWN.iter().map(|own| own.unit) {
            let text = std::fs::read_to_string(format!("systemd/{unit}")).unwrap();
            for name in text.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
                let stands = format!("SetCredential={name}:{}", String::from_utf8_lossy(NONE));
                assert!(text.lines().any(|line| line == stands), "{unit}: {name}");
                seen += 1;
            }
        }
        assert!(seen >= 12, "{seen}");
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials::in_folder(folder.path());
        for (content, is_there) in [("(none)", false), ("", true), ("\n", true), ("(none)\n", true)] {
            std::fs::write(folder.path().join("admin-token"), content).unwrap();
            assert_eq!(credentials.read("admin-token").unwrap().is_some(), is_there, "{content:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_first_store_is_read_from_the_others() {
        assert_eq!(Credentials::in_folder(Path::new(CREDSTORE)).others.len(), 2);
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let credentials =
            Credentials { others: vec![second.path().to_owned()], ..Credentials::in_folder(first.path()) };
        std::fs::write(second.path().join("webhook-secret"), "short").unwrap();
        assert!(credentials.webhook_secrets().is_err(), "a secret of the second store is judged too");
        std::fs::write(first.path().join("webhook-secret"), "0123456789abcdef").unwrap();
        assert_eq!(credentials.webhook_secrets().unwrap().len(), 1);
    }
}
