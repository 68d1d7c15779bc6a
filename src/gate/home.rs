//! The tailnet that the gate publishes in: the first one it opened in, or the one that a person allowed since.

use serde::{Deserialize, Serialize};

use super::Error;
use super::node::{Node, Tailnet};
use crate::log;
use crate::records::FormerName;
use crate::state::Folder;

const FILE: &str = "tailnet.json";

/// `gate/tailnet.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Home {
    #[serde(flatten)]
    tailnet: Tailnet,
    /// The node's DNS name when the gate last opened.
    dns_name: String,
    /// The name before that one, which a forge may still have, and when it changed (RFC 3339).
    former: Option<FormerName>,
}

impl Home {
    /// Whether the node is where it was published first; none where it never was.
    ///
    /// # Errors
    /// `OtherTailnet` where it is in another one, `State` where the file cannot be read.
    pub fn check(folder: &Folder, node: &Node) -> Result<Option<Self>, Error> {
        let home: Option<Self> = folder.read_json(FILE).map_err(|error| Error::State(error.to_string()))?;
        match (&home, &node.tailnet) {
            (Some(home), Some(now)) if !home.tailnet.is_same(now) => {
                Err(Error::OtherTailnet { first: home.tailnet.shown().to_owned(), now: now.shown().to_owned() })
            }
            _ => Ok(home),
        }
    }

    /// Checks as `check`, keeps the tailnet of a node that is published for the first time, and reports a new name.
    /// Returns the name that the node had before.
    ///
    /// # Errors
    /// As `check`, and where the file cannot be written.
    pub fn keep(folder: &Folder, node: &Node) -> Result<Option<FormerName>, Error> {
        let home = Self::check(folder, node)?;
        let Some((tailnet, name)) = node.tailnet.as_ref().zip(node.name.as_ref()) else { return Ok(None) };
        if let Some(home) = &home
            && home.tailnet == *tailnet
            && home.dns_name == *name
        {
            return Ok(home.former.clone());
        }
        let former = match home {
            Some(home) if home.dns_name != *name => {
                let reason = "give the forge the new address, it still has the old one";
                log::warn!("node_renamed", from = home.dns_name, to = name, reason = reason);
                Some(FormerName { dns_name: home.dns_name, until: log::now() })
            }
            Some(home) => home.former,
            None => None,
        };
        Self::write(folder, tailnet, name, former.clone())?;
        Ok(former)
    }

    /// Makes the tailnet in which the node is now the one that may be published in. Returns the names of the one before and
    /// of this one.
    ///
    /// # Errors
    /// Where the node is in no tailnet, or the file cannot be written.
    pub fn allow(folder: &Folder, node: &Node) -> Result<(Option<String>, String), Error> {
        let Some((tailnet, name)) = node.tailnet.as_ref().zip(node.name.as_ref()) else {
            return Err(node.away().unwrap_or_else(|| Error::NotConnected("NoState".to_owned())));
        };
        // A damaged file is what this command mends.
        let before = folder.read_json::<Self>(FILE).ok().flatten();
        Self::write(folder, tailnet, name, None)?;
        Ok((before.map(|home| home.tailnet.shown().to_owned()), tailnet.shown().to_owned()))
    }

    fn write(folder: &Folder, tailnet: &Tailnet, name: &str, former: Option<FormerName>) -> Result<(), Error> {
        let home = Self { tailnet: tailnet.clone(), dns_name: name.to_owned(), former };
        folder.publish_json(FILE, &home).map_err(|error| Error::State(error.to_string()))
    }
}
